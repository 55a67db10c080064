// Attention of the rows of trees and chains over a paged cache, on tensor cores.
//
// A block takes 64 queries (rows times the heads that share a key/value head), a warp 16 of them,
// and walks chunks of 64 positions at fixed borders: S = q · kᵀ, softmax as it goes (Dao et al.,
// FlashAttention-2), out += p · v. Splits of 8 chunks go to different blocks and are merged in
// their order by the one that comes last.
//
// Cached positions, and the fresh ones of a chain, are the same for all rows and are multiplied for
// 16 queries at once. Fresh positions of a tree differ by row: there each row is multiplied alone,
// with its own ancestors' keys and values in the same places of the same instructions, and the
// other queries' results are dropped. So a query's bits do not depend on which kind a position was.
#include "backend/cuda/device/async_copy.cuh"
#include "backend/cuda/device/dependency.cuh"
#include "backend/cuda/device/shared.cuh"
#include "backend/cuda/kernels/attention_merge.cuh"
#include "backend/cuda/launch.h"

namespace medusa::cuda {

void tree_attention_f32(const Stream& stream, const AttentionArgs& args);

namespace {

// Grid: (tiles, key/value heads · parts, splits). A part is kOut channels of the result.
template <class T, int kDim, int kOut>
__global__ void __launch_bounds__(kAttentionThreads) attention_kernel(AttentionArgs a) {
  follow_earlier_kernels();
  MEDUSA_DYNAMIC_SHARED(T, shared);  // queries, then twice [keys, values]
  constexpr int kParts = kDim / kOut;
  constexpr int kKeys = kChunk * kStride<kDim>, kStage = kKeys + kChunk * kStride<kOut>;
  const AttentionBlock block(a, blockIdx.x, blockIdx.y / kParts);
  const int first_out = static_cast<int>(blockIdx.y) % kParts * kOut;
  const int splits = attention_splits(block.tile);
  if (static_cast<int>(blockIdx.z) >= splits) return;
  const int split = block.tile.first_chunk / kSplitChunks + static_cast<int>(blockIdx.z);
  const int first = max(split * kSplitChunks, block.tile.first_chunk);
  const int end = min((split + 1) * kSplitChunks, block.tile.last_chunk + 1);
  const int first_query = warp() * 16;
  const LaneQuery mine[2] = {lane_query(block, first_query + lane() / 4),
                             lane_query(block, first_query + lane() / 4 + 8)};
  const bool busy = first_query < block.queries();
  const int first_row = block.row(first_query);
  const int last_row = block.row(min(first_query + 15, block.queries() - 1));
  const T* queries = shared + first_query * kStride<kDim>;
  const auto stage = [&](int chunk) { return shared + kKeys + (chunk - first) % 2 * kStage; };

  const auto load = [&](int chunk) {
    T* keys = stage(chunk);
    load_chunk<T, kDim>(keys, block, a.key_pages, a.keys, chunk, 0);
    load_chunk<T, kOut>(keys + kKeys, block, a.value_pages, a.values, chunk, first_out);
    copy_async_commit();
  };
  load_queries<T, kDim>(shared + 0, block);
  load(first);
  Online<kOut> online;
  for (int chunk = first; chunk < end; ++chunk) {
    if (chunk + 1 < end) {
      load(chunk + 1);
      copy_async_wait<1>();
    } else {
      copy_async_wait<0>();
    }
    sync_block();
    if (busy) {
      const T* keys = stage(chunk);
      const T* values = keys + kKeys;
      float weights[8][4] = {};
      score<T, kDim>(weights, queries, keys, a.head_dim);
      if (differs(block, chunk * kChunk, kChunk)) {
        score_tree<T, kDim>(weights, block, mine, first_row, last_row, queries, keys, chunk);
      }
      soften<T, kOut>(weights, online, mine, a.scale * kLog2E, chunk);
#pragma unroll
      for (int step = 0; step < kChunk / 16; ++step) {
        const int at = chunk * kChunk + step * 16;
        uint32_t left[4];
        pack_weights<T>(left, weights, step);
        if (!differs(block, at, 16)) {
          weigh<T, kOut>(online, left, values, step);
          continue;
        }
        for (int row = first_row; row <= last_row; ++row) {
          const int last = a.positions[row];
          if (at > last) continue;
          weigh_alone<T, kOut>(online, block, mine, left, values, row, last, at, first_out);
        }
      }
    }
    sync_block();
  }
  if (busy) {
#pragma unroll
    for (int q = 0; q < 2; ++q) {
      online.total[q] += shuffle_xor(online.total[q], 1);
      online.total[q] += shuffle_xor(online.total[q], 2);
    }
    if (splits == 1) {
      store_result<T, kOut>(block, online, first_out);
    } else {
      store_partial<kOut>(block, partials_of<kOut>(block, blockIdx.z), online);
    }
  }
  if (splits > 1 && comes_last(a, splits)) merge<T, kOut>(block, splits, first_out);
}

template <class T, int kDim, int kOut>
void launch_dim(const Stream& stream, const AttentionArgs& a) {
  const dim3 grid(static_cast<unsigned>(a.num_tiles),
                  static_cast<unsigned>(a.num_kv_heads * (kDim / kOut)),
                  static_cast<unsigned>(a.num_splits));
  constexpr size_t kElements = 3 * kStride<kDim> + 2 * kStride<kOut>;
  launch_early(stream, grid, kAttentionThreads, sizeof(T) * kChunk * kElements,
               attention_kernel<T, kDim, kOut>, a);
}

// The least width of vectors that a kernel was made for.
constexpr int padded_dim(int head_dim) {
  return head_dim <= 16 ? 16 : head_dim <= 64 ? 64 : head_dim <= 128 ? 128 : 256;
}

template <class T>
void launch_type(const Stream& stream, const AttentionArgs& a) {
  switch (padded_dim(a.head_dim)) {
    case 16:
      return launch_dim<T, 16, 16>(stream, a);
    case 64:
      return launch_dim<T, 64, 64>(stream, a);
    case 128:
      return launch_dim<T, 128, 128>(stream, a);
    default:
      return launch_dim<T, 256, 128>(stream, a);  // more would not fit into registers
  }
}

}  // namespace

// A query's sums, its top and its total, for each part of its channels.
int64_t attention_partials(const AttentionArgs& a) {
  if (a.num_splits == 1) return 0;
  const int64_t padded = padded_dim(a.head_dim), parts = padded > 128 ? 2 : 1;
  return int64_t{a.num_tiles} * a.num_kv_heads * a.num_splits * kTileQueries * (padded + parts * 2);
}

int64_t attention_tickets(const AttentionArgs& a) {
  return int64_t{a.num_tiles} * a.num_kv_heads * (padded_dim(a.head_dim) > 128 ? 2 : 1);
}

void tree_attention(const Stream& stream, Element element, const AttentionArgs& a) {
  switch (element) {
    case Element::f32:
      return tree_attention_f32(stream, a);
    case Element::bf16:
      return launch_type<bf16>(stream, a);
    case Element::f16:
      return launch_type<f16>(stream, a);
  }
}

}  // namespace medusa::cuda
