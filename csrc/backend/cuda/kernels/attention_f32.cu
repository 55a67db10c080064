// The attention of attention.cu in f32, on the ordinary cores: a warp a query, every key and value
// fetched by logical position. A lane scores two positions of a chunk and sums some of the
// channels.
#include "backend/cuda/device/element.cuh"
#include "backend/cuda/device/reduce.cuh"
#include "backend/cuda/kernels/attention_source.cuh"
#include "backend/cuda/launch.h"

namespace medusa::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kWarps = kThreads / kWarp;
constexpr int kChunk = kAttentionChunk;
constexpr int kMostDims = 256 / kWarp;  // channels of a lane

struct Highest32 {
  __device__ __forceinline__ static float join(float a, float b) { return fmaxf(a, b); }
};

__device__ __forceinline__ const float* at_position(const AttentionBlock& block, const void* pages,
                                                    const void* rows, int row, int at) {
  return at < block.sequence.committed ? block.cached<float>(pages, at)
                                       : block.fresh<float>(rows, block.ancestor(row, at));
}

__device__ __forceinline__ float dot(const float* a, const float* b, int n) {
  float sum = 0.0f;
  for (int i = 0; i < n; ++i) sum = fmaf(a[i], b[i], sum);
  return sum;
}

struct Sums {
  float out[kMostDims] = {};
  float top = -INFINITY, total = 0.0f;
};

__device__ __forceinline__ void visit_chunk(Sums& sums, const AttentionBlock& block, int query,
                                            int chunk) {
  const AttentionArgs& a = block.a;
  const int row = block.row(query), last = block.position(query), lowest = block.lowest(last);
  float weights[2];
  for (int i = 0; i < 2; ++i) {
    const int at = chunk * kChunk + i * kWarp + lane();
    weights[i] = -INFINITY;
    if (at > last || at < lowest) continue;
    const float* key = at_position(block, a.key_pages, a.keys, row, at);
    weights[i] = dot(a.q + block.offset(query), key, a.head_dim) * a.scale;
  }
  const float top = fmaxf(sums.top, reduce_warp<Highest32>(fmaxf(weights[0], weights[1])));
  const float factor = sums.top == -INFINITY ? 0.0f : expf(sums.top - top);
  for (float& weight : weights) weight = weight == -INFINITY ? 0.0f : expf(weight - top);
  sums.top = top;
  sums.total = sums.total * factor + sum_warp(weights[0] + weights[1]);
  for (float& out : sums.out) out *= factor;
  for (int slot = 0; slot < kChunk; ++slot) {
    const int at = chunk * kChunk + slot;
    const float weight = shuffle(weights[slot / kWarp], slot % kWarp);
    if (at > last || at < lowest) continue;
    const float* value = at_position(block, a.value_pages, a.values, row, at);
#pragma unroll
    for (int i = 0; i < kMostDims; ++i) {
      const int d = i * kWarp + lane();
      if (d < a.head_dim) sums.out[i] = fmaf(weight, value[d], sums.out[i]);
    }
  }
}

// Grid: (tiles, key/value heads).
__global__ void __launch_bounds__(kThreads) attention_f32_kernel(AttentionArgs a) {
  const AttentionBlock block(a, blockIdx.x, blockIdx.y);
  for (int query = warp(); query < block.queries(); query += kWarps) {
    const int last = block.position(query);
    Sums sums;
    for (int chunk = block.lowest(last) / kChunk; chunk <= last / kChunk; ++chunk) {
      visit_chunk(sums, block, query, chunk);
    }
    float* out = static_cast<float*>(a.out) + block.offset(query);
#pragma unroll
    for (int i = 0; i < kMostDims; ++i) {
      const int d = i * kWarp + lane();
      if (d < a.head_dim) out[d] = sums.out[i] / sums.total;
    }
  }
}

}  // namespace

void tree_attention_f32(const Stream& stream, const AttentionArgs& a) {
  const dim3 grid(static_cast<unsigned>(a.num_tiles), static_cast<unsigned>(a.num_kv_heads));
  launch(stream, grid, kThreads, 0, attention_f32_kernel, a);
}

}  // namespace medusa::cuda
