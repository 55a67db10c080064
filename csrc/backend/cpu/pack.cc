#include "backend/cpu/pack.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>
#include <string>
#include <vector>

#include "backend/cpu/kernels.h"
#include "backend/cpu/scratch.h"
#include "base/check.h"
#include "base/shared_pages.h"
#include "tensor/quants.h"

namespace medusa::cpu {
namespace {

constexpr int64_t kInFeaturesUnit = 32;

std::string shape_text(const std::vector<int64_t>& shape) {
  std::string out = "(";
  for (int64_t n : shape) out += (out.size() > 1 ? ", " : "") + std::to_string(n);
  return out + ")";
}

// Non-negative dimensions whose bytes are exactly those of the tensor.
void check_bytes(const char* source, const HostTensor& tensor) {
  int64_t elements = 1;
  for (int64_t n : tensor.shape) {
    const bool fits = n > 0 && elements <= INT64_MAX / 64 / n;
    check<ModelFormatError>(fits, source, ": impossible shape ", shape_text(tensor.shape));
    elements *= n;
  }
  const int64_t unit = block_elements(tensor.dtype), row = tensor.shape.back();
  check<ModelFormatError>(row % unit == 0, source, ": expected rows of a multiple of ", unit,
                          " elements for ", name(tensor.dtype), ", found shape ",
                          shape_text(tensor.shape));
  const size_t expected = static_cast<size_t>(elements / unit) * block_bytes(tensor.dtype);
  check<ModelFormatError>(tensor.data != nullptr && tensor.bytes == expected, source, ": expected ",
                          expected, " bytes for shape ", shape_text(tensor.shape), " of ",
                          name(tensor.dtype), ", found ", tensor.bytes);
}

void check_part(const char* source, const HostTensor& part, int64_t in_features) {
  check<ModelFormatError>(is_weight_dtype(part.dtype), source, ": expected a weight type, found ",
                          name(part.dtype));
  check<ModelFormatError>(part.shape.size() == 2 && part.shape[1] == in_features, source,
                          ": expected shape (out_features, ", in_features, "), found ",
                          shape_text(part.shape));
  check_bytes(source, part);
}

void check_bias(const char* source, const HostTensor& bias, int64_t out_features) {
  check<ModelFormatError>(
      bias.shape == std::vector<int64_t>{out_features} && is_weight_dtype(bias.dtype), source,
      ": expected a bias of shape (", out_features, "), found ", shape_text(bias.shape), " of ",
      name(bias.dtype));
  check_bytes(source, bias);
}

void check_rows(const WeightSource& source) {
  if (source.rows.empty()) return;
  check(source.parts.size() == 1, source.name, ": rows can be selected of one part only");
  for (int32_t row : source.rows) {
    check<ModelFormatError>(row >= 0 && row < source.parts[0]->shape[0], source.name,
                            ": expected rows below ", source.parts[0]->shape[0], ", found ", row);
  }
}

void check_interleave(const WeightSource& source) {
  if (source.pack != Pack::interleave) return;
  const bool fits = source.parts.size() == 2 && source.rows.empty() &&
                    source.parts[0]->shape[0] == source.parts[1]->shape[0] &&
                    source.parts[0]->shape[0] % kBlock == 0;
  check<ModelFormatError>(fits, source.name, ": expected two parts with the same out_features, a ",
                          "multiple of ", kBlock, ", to interleave");
}

void check_source(const WeightSource& source) {
  check(!source.parts.empty(), source.name, ": no parts to pack");
  check(source.biases.empty() || source.biases.size() == source.parts.size(), source.name,
        ": expected one bias per part, or none");
  check<ModelFormatError>(source.parts[0]->shape.size() == 2, source.name,
                          ": expected a matrix, found shape ", shape_text(source.parts[0]->shape));
  const int64_t in_features = source.parts[0]->shape[1];
  check<ModelFormatError>(in_features % kInFeaturesUnit == 0, source.name,
                          ": expected in_features to be a multiple of ", kInFeaturesUnit,
                          ", found ", in_features);
  for (size_t p = 0; p < source.parts.size(); ++p) {
    check_part(source.name, *source.parts[p], in_features);
    if (source.biases.empty() || source.biases[p] == nullptr) continue;
    check_bias(source.name, *source.biases[p], source.parts[p]->shape[0]);
  }
  check_rows(source);
  check_interleave(source);
}

int64_t count_rows(const WeightSource& source) {
  if (!source.rows.empty()) return static_cast<int64_t>(source.rows.size());
  int64_t rows = 0;
  for (const HostTensor* part : source.parts) rows += part->shape[0];
  return rows;
}

struct SourceRow {
  size_t part;
  int64_t row;
};

// Where packed row n comes from.
SourceRow locate(const WeightSource& source, int64_t n) {
  if (!source.rows.empty()) return {0, source.rows[static_cast<size_t>(n)]};
  if (source.pack == Pack::interleave) {
    const int64_t block = n / kBlock;
    return {static_cast<size_t>(block % 2), block / 2 * kBlock + n % kBlock};
  }
  size_t part = 0;
  for (; n >= source.parts[part]->shape[0]; ++part) n -= source.parts[part]->shape[0];
  return {part, n};
}

void widen_row(float* out, const HostTensor& tensor, int64_t row) {
  const int64_t k = tensor.shape.back();
  const size_t bytes =
      static_cast<size_t>(k / block_elements(tensor.dtype)) * block_bytes(tensor.dtype);
  dequantize(out, static_cast<const char*>(tensor.data) + static_cast<size_t>(row) * bytes,
             tensor.dtype, k);
}

// rows (16, k) to every other block of [k][32]; returns whether all are finite.
bool interleave(float* out, const float* rows, int64_t k) {
  uint32_t worst = 0;
  for (int64_t i = 0; i < k; ++i) {
    for (int64_t n = 0; n < kBlock; ++n) {
      const float value = rows[n * k + i];
      worst = std::max(worst, std::bit_cast<uint32_t>(value) & 0x7fffffff);
      out[i * kPanel + n] = value;
    }
  }
  return worst < 0x7f800000;
}

// rows (16, k) to every other block of [k/2][32][2]; returns whether all are finite, rounded.
bool interleave(bf16* out, const float* rows, int64_t k) {
  int worst = 0;
  for (int64_t i = 0; i < k; i += 2) {
    for (int64_t n = 0; n < kBlock; ++n) {
      for (int64_t odd = 0; odd < 2; ++odd) {
        const bf16 value = to_bf16(rows[n * k + i + odd]);
        worst = std::max(worst, value.bits & 0x7fff);
        out[i * kPanel + n * 2 + odd] = value;
      }
    }
  }
  return worst < 0x7f80;
}

// Of one column block: a float or two bf16 of each column.
template <class T>
constexpr int64_t kLineElements = 64 / sizeof(T);

// Blocks first .. last - 1. Returns the first packed row of a block with a value that is not
// finite, or -1.
template <class T>
int64_t pack_blocks(T* out, const WeightSource& source, const Weight& weight, int64_t first,
                    int64_t last, float* rows) {
  const int64_t k = weight.in_features;
  for (int64_t block = first; block < last; ++block) {
    for (int64_t lane = 0; lane < kBlock; ++lane) {
      const int64_t n = block * kBlock + lane;
      if (n >= weight.out_features) {
        std::fill_n(rows + lane * k, k, 0.0f);
        continue;
      }
      const SourceRow from = locate(source, n);
      widen_row(rows + lane * k, *source.parts[from.part], from.row);
    }
    T* to = out + block / kPanelBlocks * k * kPanel + block % kPanelBlocks * kLineElements<T>;
    if (!interleave(to, rows, k)) return block * kBlock;
  }
  return -1;
}

Buffer pack_bias(const WeightSource& source, const Weight& weight) {
  bool any = false;
  for (const HostTensor* bias : source.biases) any = any || bias != nullptr;
  if (!any) return {};
  std::vector<std::vector<float>> parts(source.parts.size());
  for (size_t p = 0; p < parts.size(); ++p) {
    parts[p].resize(static_cast<size_t>(source.parts[p]->shape[0]));
    if (source.biases[p] != nullptr) widen_row(parts[p].data(), *source.biases[p], 0);
  }
  Buffer out = page_buffer(static_cast<size_t>(weight.out_features) * sizeof(float));
  for (int64_t n = 0; n < weight.out_features; ++n) {
    const SourceRow from = locate(source, n);
    const float value = parts[from.part][static_cast<size_t>(from.row)];
    check<ModelFormatError>(std::isfinite(value), source.name, ": bias ", n, " is not finite");
    static_cast<float*>(out.data())[n] = value;
  }
  return out;
}

template <class T>
void pack_matrix(const WeightSource& source, Weight& weight, ThreadPool& pool) {
  const int64_t k = weight.in_features, panels = (weight.out_features + kPanel - 1) / kPanel;
  const int64_t blocks = panels * kPanelBlocks;
  const size_t bytes = static_cast<size_t>(panels * kPanel * k) * sizeof(T);
  weight.storage = {map_shared_pages(bytes), bytes, unmap_shared_pages};
  const size_t per_thread = static_cast<size_t>(k * kBlock);
  std::vector<float> rows(per_thread * static_cast<size_t>(pool.num_threads()));
  std::atomic<int64_t> bad{-1};
  pool.parallel_for(blocks, 1, [&](int64_t first, int64_t last, int thread) {
    const int64_t at = pack_blocks(static_cast<T*>(weight.storage.data()), source, weight, first,
                                   last, rows.data() + per_thread * static_cast<size_t>(thread));
    if (at >= 0) bad = at;
  });
  check<ModelFormatError>(bad < 0, source.name, ": expected finite weights, found NaN or infinity ",
                          "among 16 rows from ", bad.load());
}

}  // namespace

Weight pack_weight(const WeightSource& source, DType dtype, ThreadPool& pool) {
  check_source(source);
  Weight weight;
  weight.dtype = dtype;
  weight.in_features = source.parts[0]->shape[1];
  weight.out_features = count_rows(source);
  if (dtype == DType::f32) {
    pack_matrix<float>(source, weight, pool);
  } else {
    pack_matrix<bf16>(source, weight, pool);
  }
  weight.bias = pack_bias(source, weight);
  return weight;
}

}  // namespace medusa::cpu
