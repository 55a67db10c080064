#include "backend/cuda/pack.h"

#include <algorithm>
#include <atomic>
#include <cmath>

#include "backend/cpu/source_rows.h"
#include "backend/cuda/packing.h"
#include "base/check.h"
#include "tensor/block_codes.h"
#include "tensor/float8.h"
#include "tensor/quants.h"

namespace medusa::cuda {
namespace {

void convert(float& to, float value) { to = value; }
void convert(bf16& to, float value) { to = to_bf16(value); }
void convert(f16& to, float value) { to = to_f16(value); }

bool finite(float value) { return std::isfinite(value); }
bool finite(bf16 value) { return (value.bits & 0x7f80) != 0x7f80; }
bool finite(f16 value) { return (value.bits & 0x7c00) != 0x7c00; }

template <class T>
constexpr int64_t packed_index(int64_t n, int64_t k, int64_t in_features) {
  return sizeof(T) == 4 ? packed_index_32(n, k, in_features) : packed_index_16(n, k, in_features);
}

// Rows first .. last - 1; `wide` holds one. Returns a row with a value that is not finite, or -1.
template <class T>
int64_t pack_some(T* out, const WeightSource& source, int64_t first, int64_t last,
                  std::vector<float> wide) {
  const auto width = static_cast<int64_t>(wide.size());
  for (int64_t n = first; n < last; ++n) {
    const cpu::SourceRow from = cpu::locate(source, n);
    cpu::widen_row(wide.data(), *source.parts[from.part], from.row);
    bool good = true;
    for (int64_t k = 0; k < width; ++k) {
      T& to = out[packed_index<T>(n, k, width)];
      convert(to, wide[static_cast<size_t>(k)]);
      good &= finite(to);
    }
    if (!good) return n;
  }
  return -1;
}

template <class T>
std::vector<uint8_t> pack(const WeightSource& source, int64_t padded_rows, ThreadPool& pool) {
  const int64_t rows = cpu::count_rows(source), width = source.parts[0]->shape[1];
  std::vector<uint8_t> out(static_cast<size_t>(padded_rows * width) * sizeof(T));
  std::atomic<int64_t> bad{-1};
  pool.parallel_for(padded_rows / kPanel, 1, [&](int64_t first, int64_t last, int) {
    const int64_t at =
        pack_some(reinterpret_cast<T*>(out.data()), source, first * kPanel,
                  std::min(last * kPanel, rows), std::vector<float>(static_cast<size_t>(width)));
    if (at >= 0) bad = at;
  });
  check<ModelFormatError>(bad < 0, source.name,
                          ": expected weights that are finite in the compute type, found NaN, "
                          "infinity or one that overflows in row ",
                          bad.load());
  return out;
}

int64_t padded(int64_t rows) { return (rows + kPanel - 1) / kPanel * kPanel; }

// Bytes of codes, and of one kind of factors.
size_t code_bytes(DType dtype, int64_t rows, int64_t width) {
  const bool bytes = dtype == DType::q8_0 || dtype == DType::f8_e4m3;
  return static_cast<size_t>(padded(rows) * width / (bytes ? 1 : 2));
}
size_t factor_bytes(int64_t rows, int64_t width) {
  return static_cast<size_t>(padded(rows) * (width / 32)) * sizeof(uint16_t);
}
size_t scale_bytes(int64_t rows, int64_t width) {
  return static_cast<size_t>(padded(rows) * scale_blocks(width)) * sizeof(float);
}

// One packed weight while it is filled.
struct BlockWriter {
  DType dtype;
  int64_t width;
  uint8_t* codes;
  uint16_t* scales;
  uint16_t* minimums;

  // Whether all its factors are finite.
  bool put_row(const WeightSource& source, int64_t n) const {
    const cpu::SourceRow from = cpu::locate(source, n);
    const size_t bytes = block_bytes(dtype);
    const auto* row = static_cast<const char*>(source.parts[from.part]->data) +
                      static_cast<size_t>(from.row * (width / 32)) * bytes;
    bool good = true;
    for (int64_t k = 0; k < width; k += 32, row += bytes) {
      const BlockCodes block = read_block(row, dtype);
      good &= finite(f16{block.scale}) && (dtype != DType::q4_1 || finite(f16{block.minimum}));
      put(n, k, block);
    }
    return good;
  }
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

// Of F8_E4M3; whether all of the row are finite in bf16.
bool put_float8_row(uint8_t* codes, float* scales, const WeightSource& source, int64_t n) {
  const cpu::SourceRow from = cpu::locate(source, n);
  const HostTensor& part = *source.parts[from.part];
  const int64_t width = part.shape[1];
  const auto* row = static_cast<const uint8_t*>(part.data) + from.row * width;
  for (int64_t k = 0; k < width; ++k) codes[packed_index_8(n, k, width)] = row[k];
  for (int64_t k = 0; k < width; k += kScaleColumns) {
    scales[packed_scale_index(n, k, width)] = float8_scale(part, from.row, k);
  }
  return float8_row_fits_bf16(part, from.row);
}

// A row that `put` says is bad, or -1.
template <class Put>
int64_t pack_all(int64_t rows, ThreadPool& pool, const Put& put) {
  std::atomic<int64_t> bad{-1};
  pool.parallel_for(padded(rows) / kPanel, 1, [&](int64_t first, int64_t last, int) {
    for (int64_t n = first * kPanel; n < std::min(last * kPanel, rows); ++n) {
      if (!put(n)) bad = n;
    }
  });
  return bad;
}

std::vector<uint8_t> pack_float8(const WeightSource& source, ThreadPool& pool) {
  const int64_t rows = cpu::count_rows(source), width = source.parts[0]->shape[1];
  const size_t codes = code_bytes(DType::f8_e4m3, rows, width);
  std::vector<uint8_t> out(codes + scale_bytes(rows, width));
  auto* scales = reinterpret_cast<float*>(out.data() + codes);
  const int64_t bad = pack_all(
      rows, pool, [&](int64_t n) { return put_float8_row(out.data(), scales, source, n); });
  check<ModelFormatError>(bad < 0, source.name, ": expected finite weights, found NaN or infinity ",
                          "in row ", bad);
  return out;
}

}  // namespace

DType common_codes(const WeightSource& source) {
  if (source.packed != nullptr) return DType::f32;
  const DType dtype = source.parts[0]->dtype;
  const bool same = std::all_of(source.parts.begin(), source.parts.end(),
                                [&](const HostTensor* part) { return part->dtype == dtype; });
  const bool read = dtype == DType::q8_0 || dtype == DType::q4_0 || dtype == DType::q4_1 ||
                    dtype == DType::f8_e4m3;
  return same && read ? dtype : DType::f32;
}

std::vector<uint8_t> pack_codes(const WeightSource& source, DType dtype, ThreadPool& pool) {
  if (dtype == DType::f8_e4m3) return pack_float8(source, pool);
  const int64_t rows = cpu::count_rows(source), width = source.parts[0]->shape[1];
  const size_t codes = code_bytes(dtype, rows, width), factors = factor_bytes(rows, width);
  std::vector<uint8_t> out(codes + factors * (dtype == DType::q4_1 ? 2 : 1));
  auto* scales = reinterpret_cast<uint16_t*>(out.data() + codes);
  const BlockWriter writer{dtype, width, out.data(), scales, scales + factors / sizeof(uint16_t)};
  const int64_t bad = pack_all(rows, pool, [&](int64_t n) { return writer.put_row(source, n); });
  check<ModelFormatError>(bad < 0, source.name,
                          ": expected finite scales, found NaN or infinity in row ", bad);
  return out;
}

DType dtype_of(ComputeType type) {
  switch (type) {
    case ComputeType::float32:
      return DType::f32;
    case ComputeType::float16:
      return DType::f16;
    case ComputeType::bfloat16:
      break;
  }
  return DType::bf16;
}

Element element_of(DType dtype) {
  return dtype == DType::f32 ? Element::f32 : dtype == DType::f16 ? Element::f16 : Element::bf16;
}

Format format_of(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return Format::f32;
    case DType::f16:
      return Format::f16;
    case DType::q8_0:
      return Format::q8_0;
    case DType::q4_0:
      return Format::q4_0;
    case DType::q4_1:
      return Format::q4_1;
    case DType::f8_e4m3:
      return Format::f8_e4m3;
    default:
      return Format::bf16;
  }
}

PackedWeight pieces_of(const Weight& weight) {
  const DType dtype = weight.segments[0].dtype;
  const auto* codes = static_cast<const char*>(weight.storage.data());
  const bool float8 = dtype == DType::f8_e4m3;
  if (block_elements(dtype) == 1 && !float8) return {codes, nullptr, nullptr};
  const char* scales = codes + code_bytes(dtype, weight.out_features, weight.in_features);
  if (float8) return {codes, scales, nullptr};
  return {codes, scales, scales + factor_bytes(weight.out_features, weight.in_features)};
}

std::vector<uint8_t> pack_rows(const WeightSource& source, DType dtype, ThreadPool& pool) {
  const int64_t rows = padded(cpu::count_rows(source));
  switch (dtype) {
    case DType::f32:
      return pack<float>(source, rows, pool);
    case DType::f16:
      return pack<f16>(source, rows, pool);
    default:
      return pack<bf16>(source, rows, pool);
  }
}

}  // namespace medusa::cuda
