#include "backend/cpu/pack.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>
#include <string>
#include <vector>

#include "backend/cpu/check_source.h"
#include "backend/cpu/kernels.h"
#include "backend/cpu/pack_blocks.h"
#include "backend/cpu/packed_rows.h"
#include "backend/cpu/scratch.h"
#include "backend/cpu/segments.h"
#include "backend/cpu/source_rows.h"
#include "base/check.h"
#include "base/shared_pages.h"
#include "tensor/quants.h"

namespace medusa::cpu {
namespace {

void widen_row(float* out, const HostTensor& tensor, int64_t row) {
  const int64_t k = tensor.shape.back();
  const size_t bytes =
      static_cast<size_t>(k / block_elements(tensor.dtype)) * block_bytes(tensor.dtype);
  dequantize(out, static_cast<const char*>(tensor.data) + static_cast<size_t>(row) * bytes,
             tensor.dtype, k);
}

// Packed row n of a source.
void widen_source_row(float* out, const WeightSource& source, int64_t n) {
  const SourceRow from = locate(source, n);
  if (source.packed != nullptr) return read_row(out, *source.packed, from.row);
  widen_row(out, *source.parts[from.part], from.row);
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
int64_t pack_column_blocks(T* out, const WeightSource& source, const WeightSegment& segment,
                           int64_t k, int64_t first, int64_t last, float* rows) {
  for (int64_t block = first; block < last; ++block) {
    for (int64_t lane = 0; lane < kBlock; ++lane) {
      const int64_t n = block * kBlock + lane;
      if (n < segment.num_rows) {
        widen_source_row(rows + lane * k, source, segment.first_row + n);
      } else {
        std::fill_n(rows + lane * k, k, 0.0f);
      }
    }
    T* to = out + block / kPanelBlocks * k * kPanel + block % kPanelBlocks * kLineElements<T>;
    if (!interleave(to, rows, k)) return segment.first_row + block * kBlock;
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
void pack_matrix(const WeightSource& source, const WeightSegment& segment, Weight& weight,
                 ThreadPool& pool) {
  const int64_t k = weight.in_features;
  const int64_t blocks = (segment.num_rows + kPanel - 1) / kPanel * kPanelBlocks;
  auto* to = reinterpret_cast<T*>(static_cast<char*>(weight.storage.data()) + segment.offset);
  const size_t per_thread = static_cast<size_t>(k * kBlock);
  std::vector<float> rows(per_thread * static_cast<size_t>(pool.num_threads()));
  std::atomic<int64_t> bad{-1};
  pool.parallel_for(blocks, 1, [&](int64_t first, int64_t last, int thread) {
    float* wide = rows.data() + per_thread * static_cast<size_t>(thread);
    const int64_t at = pack_column_blocks(to, source, segment, k, first, last, wide);
    if (at >= 0) bad = at;
  });
  check<ModelFormatError>(bad < 0, source.name, ": expected finite weights, found NaN or infinity ",
                          "among 16 rows from ", bad.load());
}

void pack_segment(const WeightSource& source, const WeightSegment& segment, Weight& weight,
                  ThreadPool& pool) {
  if (segment.dtype == DType::f32) return pack_matrix<float>(source, segment, weight, pool);
  if (segment.dtype == DType::bf16) return pack_matrix<bf16>(source, segment, weight, pool);
  pack_blocks(source, segment, weight, pool);
}

size_t storage_bytes(const Weight& weight) {
  const WeightSegment& last = weight.segments.back();
  const auto panels = static_cast<size_t>((last.num_rows + kPanel - 1) / kPanel);
  return last.offset + panels * panel_bytes(last.dtype, weight.in_features);
}

}  // namespace

Weight pack_weight(const WeightSource& source, DType compute, WeightFormat format,
                   ThreadPool& pool) {
  check_source(source);
  Weight weight;
  weight.in_features =
      source.packed != nullptr ? source.packed->in_features : source.parts[0]->shape[1];
  weight.out_features = count_rows(source);
  weight.segments = plan_segments(source, compute, format);
  const size_t bytes = storage_bytes(weight);
  weight.storage = {map_shared_pages(bytes), bytes, unmap_shared_pages};
  for (const WeightSegment& s : weight.segments) pack_segment(source, s, weight, pool);
  weight.bias = pack_bias(source, weight);
  return weight;
}

}  // namespace medusa::cpu
