// Causal attention over packed documents, in one pass over the keys (backbone_attention.cuh). A
// block takes 64 queries of one head and 64 of its channels.
#include "backend/cuda/kernels/backbone_attention.cuh"
#include "backend/cuda/launch.h"

namespace medusa::cuda {
namespace {

// Of the two queries, g and g + 8 of a warp's 16, whose results a lane holds.
struct Running {
  float top[2] = {-INFINITY, -INFINITY};
  float total[2] = {};  // this lane's part
};

__device__ __forceinline__ float highest_of_row(float value) {
  value = fmaxf(value, shuffle_xor(value, 1));
  return fmaxf(value, shuffle_xor(value, 2));
}

// Scores to weights, left in `weights` as they will be multiplied; sums so far are scaled down.
template <class T>
__device__ __forceinline__ void soften(TileSums& scores, Running& running, TileSums& out,
                                       T* weights, const DocumentHead& head, int chunk) {
#pragma unroll
  for (int q = 0; q < 2; ++q) {
    const int query = head.tile.start + tile_row(q * 2);
    float top = running.top[q];
#pragma unroll
    for (int e = 0; e < 16; ++e) {
      float& s = scores[e / 2][q * 2 + e % 2];
      const bool seen = head.sees(query, chunk * kTile + tile_column(e / 2, e % 2));
      s = seen ? s * head.a.scale : -INFINITY;
      top = fmaxf(top, s);
    }
    top = highest_of_row(top);
    const float base = top == -INFINITY ? 0.0f : top;  // nothing seen so far
    const float factor = running.top[q] == -INFINITY ? 0.0f : expf(running.top[q] - base);
    running.top[q] = top;
    running.total[q] *= factor;
#pragma unroll
    for (int e = 0; e < 16; ++e) {
      out[e / 2][q * 2 + e % 2] *= factor;
      const T weight = from_float<T>(expf(scores[e / 2][q * 2 + e % 2] - base));
      running.total[q] += to_float(weight);
      weights[tile_row(q * 2) * kTileStride + tile_column(e / 2, e % 2)] = weight;
    }
  }
}

template <class T>
__device__ __forceinline__ void store(T* out, const TileSums& sums, const Running& running,
                                      const HeadRows& rows, int first) {
#pragma unroll
  for (int q = 0; q < 2; ++q) {
    float total = running.total[q];
    total += shuffle_xor(total, 1);
    total += shuffle_xor(total, 2);
    const int r = tile_row(q * 2);
#pragma unroll
    for (int e = 0; e < 16; ++e) {
      const int d = first + tile_column(e / 2, e % 2);
      if (r >= rows.count || d >= rows.head_dim) continue;
      out[(rows.row + r) * rows.cols + rows.column + d] =
          from_float<T>(sums[e / 2][q * 2 + e % 2] / total);
    }
  }
}

// Grid: (tiles, heads, slabs of channels).
template <class T>
__global__ void __launch_bounds__(kTileThreads) attention_kernel(TrainAttentionArgs a, T* out) {
  MEDUSA_DYNAMIC_SHARED(T, memory);
  T *queries = memory, *right = memory + kTileElements, *weights = memory + 2 * kTileElements;
  const DocumentHead document{a, a.tiles[blockIdx.x]};
  const int head = static_cast<int>(blockIdx.y), first = static_cast<int>(blockIdx.z * kSlab);
  const int kv_head = head / (a.num_heads / a.num_kv_heads), own = document.own_chunk();
  const HeadRows rows = document.queries(a.q, head, own);
  TileSums sums = {};
  Running running;
  for (int chunk = document.first_key_chunk(); chunk <= own; ++chunk) {
    TileSums scores;
    score_tiles(scores, queries, rows, right, document.keys(a.k, kv_head, chunk),
                chunk > document.first_key_chunk());
    soften(scores, running, sums, weights, document, chunk);
    add_weighted(sums, weights, right, document.keys(a.v, kv_head, chunk), first);
  }
  store(out, sums, running, rows, first);
}

template <class T>
void launch_type(const Stream& stream, const TrainAttentionArgs& a, T* out) {
  const dim3 grid(static_cast<unsigned>(a.num_tiles), static_cast<unsigned>(a.num_heads),
                  slabs(a.head_dim));
  launch(stream, grid, kTileThreads, 3 * kTileElements * sizeof(T), attention_kernel<T>, a, out);
}

}  // namespace

void train_attention(const Stream& stream, Element element, const TrainAttentionArgs& a,
                     void* out) {
  if (element == Element::f32) return launch_type(stream, a, static_cast<float*>(out));
  launch_type(stream, a, static_cast<bf16*>(out));
}

}  // namespace medusa::cuda
