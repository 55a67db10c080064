// Gradients of backbone_attention.cu; scores are computed anew. With probabilities p and
// dp = dout · vᵀ: ds = scale · p · (dp - sum(p · dp)), dq = ds · k, dk = dsᵀ · q, dv = pᵀ · dout.
// The first kernel finds each query's softmax and dq. In the second a block takes 64 keys and adds
// up their queries head by head, in order: no sum depends on which block comes first.
#include "backend/cuda/kernels/backbone_attention.cuh"
#include "backend/cuda/launch.h"

namespace medusa::cuda {
namespace {

// Of the two queries whose results a lane holds; totals and dots are this lane's parts.
struct Running {
  SoftmaxState of[2] = {{-INFINITY, 0.0f, 0.0f}, {-INFINITY, 0.0f, 0.0f}};
};

__device__ __forceinline__ float over_row(float part) {
  part += shuffle_xor(part, 1);
  return part + shuffle_xor(part, 2);
}

__device__ __forceinline__ void add_chunk(Running& running, const TileSums& scores,
                                          const TileSums& dp, const DocumentHead& head, int chunk) {
#pragma unroll
  for (int q = 0; q < 2; ++q) {
    SoftmaxState& state = running.of[q];
    const int query = head.tile.start + tile_row(q * 2);
    const auto score = [&](int e) {
      const bool seen = head.sees(query, chunk * kTile + tile_column(e / 2, e % 2));
      return seen ? scores[e / 2][q * 2 + e % 2] * head.a.scale : -INFINITY;
    };
    float top = state.top;
#pragma unroll
    for (int e = 0; e < 16; ++e) top = fmaxf(top, score(e));
    top = fmaxf(top, shuffle_xor(top, 1));
    top = fmaxf(top, shuffle_xor(top, 2));
    const float base = top == -INFINITY ? 0.0f : top;  // nothing seen so far
    const float factor = state.top == -INFINITY ? 0.0f : expf(state.top - base);
    state = {top, state.total * factor, state.dot * factor};
#pragma unroll
    for (int e = 0; e < 16; ++e) {
      const float weight = expf(score(e) - base);
      state.total += weight;
      state.dot = fmaf(weight, dp[e / 2][q * 2 + e % 2], state.dot);
    }
  }
}

__device__ __forceinline__ float probability(float score, const SoftmaxState& state) {
  return expf(score - state.top) / state.total;
}

// Of queries that do not exist nobody reads the state.
__device__ __forceinline__ void finish(Running& running) {
#pragma unroll
  for (int q = 0; q < 2; ++q) {
    SoftmaxState& state = running.of[q];
    state.total = over_row(state.total);
    state.dot = over_row(state.dot) / state.total;
  }
}

__device__ __forceinline__ void store(float* out, const TileSums& sums, const HeadRows& rows,
                                      int first) {
#pragma unroll
  for (int e = 0; e < 32; ++e) {
    const int r = tile_row(e % 4), d = first + tile_column(e / 4, e % 4);
    if (r >= rows.count || d >= rows.head_dim) continue;
    out[(rows.row + r) * rows.cols + rows.column + d] = sums[e / 4][e % 4];
  }
}

template <class T>
struct QueryTiles {
  T *queries, *grads, *right, *weights;
  __device__ __forceinline__ explicit QueryTiles(T* memory)
      : queries(memory),
        grads(memory + kTileElements),
        right(memory + 2 * kTileElements),
        weights(memory + 3 * kTileElements) {}
};

// Grid: (tiles, heads, slabs of channels).
template <class T>
__global__ void __launch_bounds__(kTileThreads)
    queries_kernel(TrainAttentionArgs a, TrainAttentionGradients g) {
  MEDUSA_DYNAMIC_SHARED(T, memory);
  const QueryTiles<T> tiles(memory);
  const DocumentHead document{a, a.tiles[blockIdx.x]};
  const int head = static_cast<int>(blockIdx.y), first = static_cast<int>(blockIdx.z * kSlab);
  const int kv_head = head / (a.num_heads / a.num_kv_heads), own = document.own_chunk();
  const int lowest = document.first_key_chunk();
  const HeadRows queries = document.queries(a.q, head, own);
  const HeadRows grads = document.queries(g.dout, head, own);
  const auto score = [&](TileSums& scores, TileSums& dp, int chunk, bool there) {
    score_tiles(scores, tiles.queries, queries, tiles.right, document.keys(a.k, kv_head, chunk),
                there);
    score_tiles(dp, tiles.grads, grads, tiles.right, document.keys(a.v, kv_head, chunk), there);
  };
  Running running;
  TileSums scores, dp, dq = {};
  for (int chunk = lowest; chunk <= own; ++chunk) {
    score(scores, dp, chunk, chunk > lowest);
    add_chunk(running, scores, dp, document, chunk);
  }
  finish(running);
  for (int chunk = lowest; chunk <= own; ++chunk) {
    score(scores, dp, chunk, true);
#pragma unroll
    for (int e = 0; e < 32; ++e) {
      const SoftmaxState& state = running.of[e % 4 / 2];
      const int key = chunk * kTile + tile_column(e / 4, e % 4);
      const bool seen = document.sees(document.tile.start + tile_row(e % 4), key);
      const float p = seen ? probability(scores[e / 4][e % 4] * a.scale, state) : 0.0f;
      put(tiles.weights, e / 4, e % 4, a.scale * p * (dp[e / 4][e % 4] - state.dot));
    }
    add_weighted(dq, tiles.weights, tiles.right, document.keys(a.k, kv_head, chunk), first);
  }
  store(g.dq, dq, queries, first);
  if (first > 0 || lane() % 4 != 0) return;
#pragma unroll
  for (int q = 0; q < 2; ++q) {
    if (tile_row(q * 2) >= queries.count) continue;
    g.states[(queries.row + tile_row(q * 2)) * a.num_heads + head] = running.of[q];
  }
}

__device__ __forceinline__ void load_states(SoftmaxState* to, const TrainAttentionArgs& a,
                                            const SoftmaxState* states, const HeadRows& queries,
                                            int head) {
  const int r = static_cast<int>(threadIdx.x);
  if (r < queries.count) to[r] = states[(queries.row + r) * a.num_heads + head];
}

// Grid: (tiles, kv heads, slabs of channels). Rows of what is computed are keys, columns queries.
template <class T>
__global__ void __launch_bounds__(kTileThreads)
    keys_kernel(TrainAttentionArgs a, TrainAttentionGradients g) {
  MEDUSA_DYNAMIC_SHARED(T, memory);
  MEDUSA_SHARED(SoftmaxState, states, kTile);
  const QueryTiles<T> tiles(memory);
  const DocumentHead document{a, a.tiles[blockIdx.x]};
  const int kv_head = static_cast<int>(blockIdx.y), first = static_cast<int>(blockIdx.z * kSlab);
  const int heads = a.num_heads / a.num_kv_heads, own = document.own_chunk();
  const HeadRows keys = document.keys(a.k, kv_head, own);
  const HeadRows values = document.keys(a.v, kv_head, own);
  TileSums scores, dp, dk = {}, dv = {};
  for (int head = kv_head * heads; head < (kv_head + 1) * heads; ++head) {
    for (int chunk = own; chunk <= document.last_query_chunk(); ++chunk) {
      const HeadRows queries = document.queries(a.q, head, chunk);
      const HeadRows grads = document.queries(g.dout, head, chunk);
      const bool there = head > kv_head * heads || chunk > own;
      score_tiles(scores, tiles.queries, keys, tiles.right, queries, there);
      load_states(states, a, g.states, queries, head);
      score_tiles(dp, tiles.grads, values, tiles.right, grads, there);
#pragma unroll
      for (int e = 0; e < 32; ++e) {
        const int column = tile_column(e / 4, e % 4);
        const bool seen =
            document.sees(chunk * kTile + column, document.tile.start + tile_row(e % 4));
        float& score = scores[e / 4][e % 4];
        score = seen ? probability(score * a.scale, states[column]) : 0.0f;
        put(tiles.weights, e / 4, e % 4, score);
        const float dot = seen ? states[column].dot : 0.0f;
        dp[e / 4][e % 4] = a.scale * score * (dp[e / 4][e % 4] - dot);
      }
      add_weighted(dv, tiles.weights, tiles.right, grads, first);
      sync_warp();
#pragma unroll
      for (int e = 0; e < 32; ++e) put(tiles.weights, e / 4, e % 4, dp[e / 4][e % 4]);
      add_weighted(dk, tiles.weights, tiles.right, queries, first);
    }
  }
  store(g.dk, dk, keys, first);
  store(g.dv, dv, values, first);
}

template <class T>
void launch_type(const Stream& stream, const TrainAttentionArgs& a,
                 const TrainAttentionGradients& g) {
  constexpr size_t kBytes = 4 * kTileElements * sizeof(T);
  const auto tiles = static_cast<unsigned>(a.num_tiles);
  launch(stream, dim3(tiles, static_cast<unsigned>(a.num_heads), slabs(a.head_dim)), kTileThreads,
         kBytes, queries_kernel<T>, a, g);
  launch(stream, dim3(tiles, static_cast<unsigned>(a.num_kv_heads), slabs(a.head_dim)),
         kTileThreads, kBytes, keys_kernel<T>, a, g);
}

}  // namespace

void train_attention_backward(const Stream& stream, Element element, const TrainAttentionArgs& a,
                              const TrainAttentionGradients& g) {
  if (element == Element::f32) return launch_type<float>(stream, a, g);
  launch_type<bf16>(stream, a, g);
}

}  // namespace medusa::cuda
