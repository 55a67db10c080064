#include "tensor/quants.h"

#include <cstring>

#include "base/check.h"

// Block formats of ggml (ggml-common.h, ggml-quants.c). A block never spans rows; fields are little
// endian, without padding, and in files not aligned: hence bytes and memcpy.
namespace medusa {
namespace {

uint16_t load16(const uint8_t* p) { return static_cast<uint16_t>(p[0] | p[1] << 8); }
uint32_t load32(const uint8_t* p) { return load16(p) | uint32_t{load16(p + 2)} << 16; }
float half(const uint8_t* p) { return half_to_float(load16(p)); }

// 32 elements: scale, 32 signed bytes.
void q8_0(const uint8_t* block, float* out) {
  const float d = half(block);
  for (int i = 0; i < 32; ++i) out[i] = d * static_cast<float>(static_cast<int8_t>(block[2 + i]));
}

// 32 elements: scale, 16 bytes whose low nibbles are the first 16 values.
void q4_0(const uint8_t* block, float* out) {
  const float d = half(block);
  const uint8_t* q = block + 2;
  for (int i = 0; i < 16; ++i) {
    out[i] = static_cast<float>((q[i] & 15) - 8) * d;
    out[i + 16] = static_cast<float>((q[i] >> 4) - 8) * d;
  }
}

// As q4_0, unsigned, with a minimum.
void q4_1(const uint8_t* block, float* out) {
  const float d = half(block), m = half(block + 2);
  const uint8_t* q = block + 4;
  for (int i = 0; i < 16; ++i) {
    out[i] = static_cast<float>(q[i] & 15) * d + m;
    out[i + 16] = static_cast<float>(q[i] >> 4) * d + m;
  }
}

// As q4_0, with a word that holds every value's fifth bit.
void q5_0(const uint8_t* block, float* out) {
  const float d = half(block);
  const uint32_t high = load32(block + 2);
  const uint8_t* q = block + 6;
  for (int i = 0; i < 16; ++i) {
    const int low_bit = static_cast<int>(high >> i & 1), high_bit = high >> (i + 16) & 1;
    out[i] = static_cast<float>(((q[i] & 15) | low_bit << 4) - 16) * d;
    out[i + 16] = static_cast<float>(((q[i] >> 4) | high_bit << 4) - 16) * d;
  }
}

void q5_1(const uint8_t* block, float* out) {
  const float d = half(block), m = half(block + 2);
  const uint32_t high = load32(block + 4);
  const uint8_t* q = block + 8;
  for (int i = 0; i < 16; ++i) {
    const int low_bit = static_cast<int>(high >> i & 1), high_bit = high >> (i + 16) & 1;
    out[i] = static_cast<float>((q[i] & 15) | low_bit << 4) * d + m;
    out[i + 16] = static_cast<float>((q[i] >> 4) | high_bit << 4) * d + m;
  }
}

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

// Scale and minimum of group 0..7, six bits each in 12 bytes.
void k_scale(const uint8_t* scales, int group, float& scale, float& minimum) {
  int s, m;
  if (group < 4) {
    s = scales[group] & 63;
    m = scales[group + 4] & 63;
  } else {
    s = (scales[group + 4] & 15) | scales[group - 4] >> 6 << 4;
    m = scales[group + 4] >> 4 | scales[group] >> 6 << 4;
  }
  scale = static_cast<float>(s);
  minimum = static_cast<float>(m);
}

// 8 groups of 32. scale, minimum, scales[12], quants[128].
void q4_k(const uint8_t* block, float* out) {
  const float d = half(block), dmin = half(block + 2);
  for (int group = 0; group < 8; ++group) {
    const uint8_t* bytes = block + 16 + group / 2 * 32;
    const int shift = group % 2 * 4;
    float scale, minimum;
    k_scale(block + 4, group, scale, minimum);
    for (int i = 0; i < 32; ++i) {
      out[group * 32 + i] = d * scale * static_cast<float>(bytes[i] >> shift & 15) - dmin * minimum;
    }
  }
}

// As q4_k, with high bits[32] before the quants.
void q5_k(const uint8_t* block, float* out) {
  const float d = half(block), dmin = half(block + 2);
  const uint8_t* high = block + 16;
  for (int group = 0; group < 8; ++group) {
    const uint8_t* bytes = block + 48 + group / 2 * 32;
    const int shift = group % 2 * 4;
    float scale, minimum;
    k_scale(block + 4, group, scale, minimum);
    for (int i = 0; i < 32; ++i) {
      const int value = (bytes[i] >> shift & 15) | (high[i] >> group & 1) << 4;
      out[group * 32 + i] = d * scale * static_cast<float>(value) - dmin * minimum;
    }
  }
}

// Two halves of 128; low nibbles[128], high pairs[64], signed scales[16], scale.
void q6_k(const uint8_t* block, float* out) {
  const auto* scales = reinterpret_cast<const int8_t*>(block + 192);
  const float d = half(block + 208);
  for (int i = 0; i < 256; ++i) {
    const int n = i / 128, quarter = i % 128 / 32, l = i % 32;
    const int low = block[n * 64 + quarter % 2 * 32 + l] >> (quarter / 2 * 4) & 15;
    const int high = block[128 + n * 32 + l] >> (quarter * 2) & 3;
    const float scale = d * static_cast<float>(scales[i / 16]);
    out[i] = scale * static_cast<float>((low | high << 4) - 32);
  }
}

using Block = void (*)(const uint8_t*, float*);

Block block_reader(DType dtype) {
  switch (dtype) {
    case DType::q8_0:
      return q8_0;
    case DType::q4_0:
      return q4_0;
    case DType::q4_1:
      return q4_1;
    case DType::q5_0:
      return q5_0;
    case DType::q5_1:
      return q5_1;
    case DType::q2_k:
      return q2_k;
    case DType::q3_k:
      return q3_k;
    case DType::q4_k:
      return q4_k;
    case DType::q5_k:
      return q5_k;
    case DType::q6_k:
      return q6_k;
    default:
      return nullptr;
  }
}

}  // namespace

float half_to_float(uint16_t half) {
  const uint32_t sign = uint32_t{half & 0x8000u} << 16, rest = half & 0x7fffu;
  if (rest >= 0x7c00) return std::bit_cast<float>(sign | 0x7f800000 | (rest & 0x3ff) << 13);
  if (rest >= 0x0400) return std::bit_cast<float>(sign | ((rest << 13) + (112u << 23)));
  const float subnormal = static_cast<float>(rest) * 0x1p-24f;
  return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(subnormal));
}

bool is_weight_dtype(DType dtype) { return dtype != DType::i32; }

void dequantize(float* out, const void* data, DType dtype, int64_t elements) {
  const auto* bytes = static_cast<const uint8_t*>(data);
  if (dtype == DType::f32) {
    std::memcpy(out, data, static_cast<size_t>(elements) * sizeof(float));
  } else if (dtype == DType::f16) {
    for (int64_t i = 0; i < elements; ++i) out[i] = half(bytes + 2 * i);
  } else if (dtype == DType::bf16) {
    for (int64_t i = 0; i < elements; ++i) out[i] = to_float(bf16{load16(bytes + 2 * i)});
  } else {
    const Block read = block_reader(dtype);
    check<ModelFormatError>(read != nullptr, "dequantize: no weight type: ", name(dtype));
    const int64_t step = block_elements(dtype);
    for (int64_t i = 0; i < elements; i += step, bytes += block_bytes(dtype)) read(bytes, out + i);
  }
}

}  // namespace medusa
