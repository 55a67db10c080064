#include "tensor/quants.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "base/check.h"
#include "tensor/block_codes.h"

// Block formats of ggml (ggml-common.h, ggml-quants.c). A block never spans rows; fields are little
// endian, without padding, and in files not aligned: hence bytes and memcpy.
namespace medusa {
namespace {

uint16_t load16(const uint8_t* p) { return static_cast<uint16_t>(p[0] | p[1] << 8); }
float half(const uint8_t* p) { return half_to_float(load16(p)); }

// 16 groups of 16; scales[16] (scale | minimum << 4), quants[64], scale, minimum.
void q2_k(const uint8_t* block, float* out) {
  const uint8_t *scales = block, *q = block + 16;
  const float d = half(block + 80), dmin = half(block + 82);
  for (int group = 0; group < 16; ++group) {
    const int shift = group % 8 / 2 * 2;
    const uint8_t* bytes = q + group / 8 * 32 + group % 2 * 16;
    const float scale = d * static_cast<float>(scales[group] & 15);
    const float minimum = dmin * static_cast<float>(scales[group] >> 4);
    for (int i = 0; i < 16; ++i) {
      out[group * 16 + i] = scale * static_cast<float>(bytes[i] >> shift & 3) - minimum;
    }
  }
}

// Sixteen six-bit scales in 12 bytes: low nibbles in the first eight, high pairs in the last four.
int q3_k_scale(const uint8_t* scales, int group) {
  const int low = group < 8 ? scales[group] & 15 : scales[group - 8] >> 4;
  const int high = scales[8 + group % 4] >> (group / 4 * 2) & 3;
  return (low | high << 4) - 32;
}

// high bits[32], quants[64], scales[12], scale. A clear high bit means minus four.
void q3_k(const uint8_t* block, float* out) {
  const uint8_t *high = block, *q = block + 32, *scales = block + 96;
  const float d = half(block + 108);
  for (int group = 0; group < 16; ++group) {
    const int shift = group % 8 / 2 * 2, first = group % 2 * 16;
    const uint8_t* bytes = q + group / 8 * 32 + first;
    const float scale = d * static_cast<float>(q3_k_scale(scales, group));
    for (int i = 0; i < 16; ++i) {
      const int bit = high[first + i] >> (group / 2) & 1;
      out[group * 16 + i] = scale * static_cast<float>((bytes[i] >> shift & 3) - (bit ? 0 : 4));
    }
  }
}

// One block of a type that has them.
void widen_block(float* out, const uint8_t* block, DType dtype) {
  if (const BlockFormat* format = block_format(dtype)) {
    return widen_block(out, read_block(block, dtype), *format);
  }
  check<ModelFormatError>(dtype == DType::q2_k || dtype == DType::q3_k,
                          "dequantize: no weight type: ", name(dtype));
  return dtype == DType::q2_k ? q2_k(block, out) : q3_k(block, out);
}

}  // namespace

f16 to_f16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t sign = bits >> 16 & 0x8000, size = bits & 0x7fffffff;
  uint32_t half = 0x7e00;   // NaN
  if (size < 0x38800000) {  // below 2^-14: steps of 2^-24, which are those of 0.5
    half = std::bit_cast<uint32_t>(std::bit_cast<float>(size) + 0.5f) - 0x3f000000;
  } else if (size <= 0x7f800000) {  // the exponent's bias is 112 less
    half = std::min(size - 0x38000000 + 0xfff + (size >> 13 & 1), 0x7c00u << 13) >> 13;
  }
  return {static_cast<uint16_t>(sign | half)};
}

float half_to_float(uint16_t half) {
  const uint32_t sign = uint32_t{half & 0x8000u} << 16, rest = half & 0x7fffu;
  if (rest >= 0x7c00) return std::bit_cast<float>(sign | 0x7f800000 | (rest & 0x3ff) << 13);
  if (rest >= 0x0400) return std::bit_cast<float>(sign | ((rest << 13) + (112u << 23)));
  const float subnormal = static_cast<float>(rest) * 0x1p-24f;
  return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(subnormal));
}

bool is_weight_dtype(DType dtype) {
  return dtype != DType::i32 && dtype != DType::i8 && dtype != DType::f8_e4m3;
}

void dequantize(float* out, const void* data, DType dtype, int64_t elements) {
  const auto* bytes = static_cast<const uint8_t*>(data);
  if (dtype == DType::f32) {
    std::memcpy(out, data, static_cast<size_t>(elements) * sizeof(float));
  } else if (dtype == DType::f16) {
    for (int64_t i = 0; i < elements; ++i) out[i] = half(bytes + 2 * i);
  } else if (dtype == DType::bf16) {
    for (int64_t i = 0; i < elements; ++i) out[i] = to_float(bf16{load16(bytes + 2 * i)});
  } else {
    const int64_t step = block_elements(dtype);
    for (int64_t i = 0; i < elements; i += step, bytes += block_bytes(dtype)) {
      widen_block(out + i, bytes, dtype);
    }
  }
}

}  // namespace medusa
