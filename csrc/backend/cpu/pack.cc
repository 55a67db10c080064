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

Buffer pack_bias(const WeightSource& source) {
  const std::vector<float> bias = widen_bias(source);
  if (bias.empty()) return {};
  Buffer out = page_buffer(bias.size() * sizeof(float));
  std::copy(bias.begin(), bias.end(), static_cast<float*>(out.data()));
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
  if (segment.dtype == DType::f8_e4m3) return pack_float8(source, segment, weight, pool);
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
  weight.bias = pack_bias(source);
  return weight;
}

}  // namespace medusa::cpu
