#include "backend/cuda/pack.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "backend/cpu/source_rows.h"
#include "backend/cuda/packing.h"
#include "base/check.h"
#include "tensor/block_codes.h"
#include "tensor/quants.h"

namespace medusa::cuda {
namespace {

void put(float* out, int64_t n, int64_t k, int64_t in_features, float value) {
  out[packed_index_32(n, k, in_features)] = value;
}
void put(bf16* out, int64_t n, int64_t k, int64_t in_features, float value) {
  out[packed_index_16(n, k, in_features)] = to_bf16(value);
}

// A panel at a time, so that the widened rows stay few.
template <class T>
void pack(T* out, Backend& host, const Weight& weight, const char* name) {
  const int64_t width = weight.in_features;
  std::vector<float> rows(static_cast<size_t>(kPanel * width));
  std::vector<int32_t> ids(kPanel);
  for (int64_t first = 0; first < weight.out_features; first += kPanel) {
    const int64_t count = std::min<int64_t>(kPanel, weight.out_features - first);
    ids.resize(static_cast<size_t>(count));
    std::iota(ids.begin(), ids.end(), static_cast<int32_t>(first));
    host.embed({rows.data(), DType::f32, count, width}, weight, ids);
    for (int64_t i = 0; i < count * width; ++i) {
      const float value = rows[static_cast<size_t>(i)];
      check<ModelFormatError>(sizeof(T) == 4 || std::isfinite(to_float(to_bf16(value))), name,
                              ": expected finite weights, found one that overflows BF16 in row ",
                              first + i / width);
      put(out, first + i / width, i % width, width, value);
    }
  }
}

int64_t padded(int64_t rows) { return (rows + kPanel - 1) / kPanel * kPanel; }

// Bytes of codes, and of one kind of factors.
size_t code_bytes(DType dtype, int64_t rows, int64_t width) {
  return static_cast<size_t>(padded(rows) * width / (dtype == DType::q8_0 ? 1 : 2));
}
size_t factor_bytes(int64_t rows, int64_t width) {
  return static_cast<size_t>(padded(rows) * (width / 32)) * sizeof(uint16_t);
}

// One packed weight while it is filled.
struct BlockWriter {
  DType dtype;
  int64_t width;
  uint8_t* codes;
  uint16_t* scales;
  uint16_t* minimums;

  void put(int64_t n, int64_t column, const BlockCodes& block) const {
    const int64_t factor = packed_factor_index(n, column, width);
    scales[factor] = block.scale;
    if (dtype == DType::q4_1) minimums[factor] = block.minimum;
    for (int64_t i = 0; i < 32; ++i) {
      if (dtype == DType::q8_0) {
        codes[packed_index_8(n, column + i, width)] = block.codes[i];
      } else {
        const int64_t at = packed_index_4(n, column + i, width);
        codes[at / 2] |= static_cast<uint8_t>(block.codes[i] << (at % 2 * 4));
      }
    }
  }
};

}  // namespace

DType common_blocks(const WeightSource& source) {
  if (source.packed != nullptr) return DType::f32;
  const DType dtype = source.parts[0]->dtype;
  const bool same = std::all_of(source.parts.begin(), source.parts.end(),
                                [&](const HostTensor* part) { return part->dtype == dtype; });
  const bool read = dtype == DType::q8_0 || dtype == DType::q4_0 || dtype == DType::q4_1;
  return same && read ? dtype : DType::f32;
}

std::vector<uint8_t> pack_blocks(const WeightSource& source, DType dtype) {
  const int64_t rows = cpu::count_rows(source), width = source.parts[0]->shape[1];
  const size_t codes = code_bytes(dtype, rows, width), factors = factor_bytes(rows, width);
  std::vector<uint8_t> out(codes + factors * (dtype == DType::q4_1 ? 2 : 1));
  auto* scales = reinterpret_cast<uint16_t*>(out.data() + codes);
  const BlockWriter writer{dtype, width, out.data(), scales, scales + factors / sizeof(uint16_t)};
  const size_t bytes = block_bytes(dtype);
  for (int64_t n = 0; n < rows; ++n) {
    const cpu::SourceRow from = cpu::locate(source, n);
    const auto* row = static_cast<const char*>(source.parts[from.part]->data) +
                      static_cast<size_t>(from.row * (width / 32)) * bytes;
    for (int64_t k = 0; k < width; k += 32, row += bytes) writer.put(n, k, read_block(row, dtype));
  }
  return out;
}

Format format_of(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return Format::f32;
    case DType::q8_0:
      return Format::q8_0;
    case DType::q4_0:
      return Format::q4_0;
    case DType::q4_1:
      return Format::q4_1;
    default:
      return Format::bf16;
  }
}

PackedWeight pieces_of(const Weight& weight) {
  const DType dtype = weight.segments[0].dtype;
  const auto* codes = static_cast<const char*>(weight.storage.data());
  if (block_elements(dtype) == 1) return {codes, nullptr, nullptr};
  const char* scales = codes + code_bytes(dtype, weight.out_features, weight.in_features);
  return {codes, scales, scales + factor_bytes(weight.out_features, weight.in_features)};
}

std::vector<uint8_t> pack_rows(Backend& host, const Weight& weight, DType dtype, const char* name) {
  const int64_t elements = padded(weight.out_features) * weight.in_features;
  std::vector<uint8_t> out(static_cast<size_t>(elements) * block_bytes(dtype));
  if (dtype == DType::f32) {
    pack(reinterpret_cast<float*>(out.data()), host, weight, name);
  } else {
    pack(reinterpret_cast<bf16*>(out.data()), host, weight, name);
  }
  return out;
}

}  // namespace medusa::cuda
