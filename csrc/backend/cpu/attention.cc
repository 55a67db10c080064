#include "backend/cpu/attention.h"

#include <algorithm>

#include "backend/cpu/segments.h"

namespace medusa::cpu {
namespace {

constexpr int64_t kScoreFloats = 1 << 16;  // of one thread: 256 KB, within its L2
constexpr int64_t kMostQueries = 48;       // that share one walk over the keys
constexpr int64_t kWorkPerThread = 512;    // queries times positions worth a second thread

int64_t round_up(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

// Floats of one query's scores: up to `positions` from a multiple of 64, a tile of slack before
// (fresh tiles start anywhere) and after.
int64_t score_stride(int64_t positions) { return round_up(positions, kTile) + 3 * kTile; }

// Positions that the rows of a sequence see, all together.
int64_t positions_seen(const SequenceRows& sequence, int64_t window) {
  const int64_t all = sequence.committed + sequence.num_rows;
  return window > 0 ? std::min(all, window + sequence.num_rows) : all;
}

// Whole register blocks: one of a single query costs nearly as much.
int64_t queries_per_block(int64_t stride) {
  const int64_t blocks = kScoreFloats / stride / kMaxQueryBlock;
  return std::clamp<int64_t>(blocks * kMaxQueryBlock, kMaxQueryBlock, kMostQueries);
}

// Everything one thread needs, for sequences of at most `rows` fresh rows and `positions` in all.
struct ThreadScratch {
  ThreadScratch(Carver carver, int64_t rows, int64_t positions, int64_t head_dim) {
    const int64_t padded = round_up(rows, kTile);
    const auto count = [](int64_t n) { return static_cast<size_t>(n); };
    scores =
        carver.take<float>(count(std::max(kScoreFloats, kMaxQueryBlock * score_stride(positions))));
    scaled = carver.take<float>(count(kMostQueries * head_dim));
    sums = carver.take<float>(count(kMostQueries * head_dim));
    score_scales = carver.take<float>(count(kMostQueries));
    value_scales = carver.take<float>(count(score_stride(positions)));
    fresh_tiles = carver.take<float>(count(padded * head_dim));
    fresh_scores = carver.take<float>(count(kMaxQueryBlock * padded));
    path = carver.take<int32_t>(count(padded));
    bytes = carver.used();
  }
  float *scores, *scaled, *sums, *score_scales, *value_scales, *fresh_tiles, *fresh_scores;
  int32_t* path;
  size_t bytes;
};

template <class T>
const T* at(const Tensor& t, int64_t row, int64_t col) {
  return t.row<T>(row) + col;
}

// What the pieces of one sequence have in common, for key/value head 0.
AttentionArgs sequence_args(const AttentionInputs& in, const RowBatch& batch,
                            const SequenceRows& sequence, const ThreadScratch& scratch) {
  const KvLayout& cache = *in.cache;
  AttentionArgs a{};
  a.q_stride = in.q.cols;
  a.fresh_stride = in.keys.cols;
  a.page_stride = cache.page_elements();
  a.pages = sequence.pages;
  a.positions = batch.positions.data() + sequence.first_row;
  a.parents = batch.parents.data() + sequence.first_row;
  a.first_row = sequence.first_row;
  a.committed = sequence.committed;
  a.chain = sequence.chain;
  a.group = in.num_heads / cache.num_kv_heads;
  a.head_dim = cache.head_dim;
  a.window = in.sliding_window;
  a.scale = in.scale;
  a.out_stride = in.q.cols;
  a.score_stride = score_stride(positions_seen(sequence, in.sliding_window));
  a.queries_per_block = queries_per_block(a.score_stride);
  a.scores = scratch.scores;
  a.scaled = scratch.scaled;
  a.sums = scratch.sums;
  a.score_scales = scratch.score_scales;
  a.value_scales = scratch.value_scales;
  a.fresh_tiles = scratch.fresh_tiles;
  a.fresh_scores = scratch.fresh_scores;
  a.path = scratch.path;
  return a;
}

// C, Out: the types of the cache and of the rows.
template <class C, class Out>
void place_head(AttentionArgs& a, Tensor out, const AttentionInputs& in, int head) {
  const int64_t kv_col = head * in.cache->head_cols(), q_col = head * a.group * a.head_dim;
  a.q = at<float>(in.q, a.first_row, q_col);
  a.out = out.row<Out>(a.first_row) + q_col;
  a.fresh_keys = at<C>(in.keys, a.first_row, kv_col);
  a.fresh_values = at<C>(in.values, a.first_row, kv_col);
  a.key_tiles = in.cache->key_tile(in.layer, 0, head);
  a.value_tiles = in.cache->value_tile(in.layer, 0, head);
}

// Where the keys begin that a call reads.
CachedKeys cached_keys(const AttentionArgs& a) {
  const int64_t position = a.positions[a.first_query / a.group];
  const int64_t lowest = a.window > 0 ? std::max<int64_t>(0, position - a.window + 1) : 0;
  return {a.pages, a.key_tiles, lowest / kTile * kTile, a.committed};
}

// Makes a thread's calls, each when the next is known.
class Calls {
 public:
  explicit Calls(void (*kernel)(const AttentionArgs&)) : kernel_(kernel) {}

  void add(const AttentionArgs& args) {
    if (known_) args_.next = cached_keys(args);
    finish();
    args_ = args;
    known_ = true;
  }
  void finish() {
    if (known_) kernel_(args_);
  }

 private:
  void (*kernel_)(const AttentionArgs&);
  AttentionArgs args_{};
  bool known_ = false;
};

// Queries first .. last - 1 of a sequence, counted head by head.
template <class C, class Out>
void add_queries(Calls& calls, AttentionArgs a, Tensor out, const AttentionInputs& in,
                 int64_t per_head, int64_t first, int64_t last) {
  while (first < last) {
    const int64_t head = first / per_head, end = std::min(last, (head + 1) * per_head);
    place_head<C, Out>(a, out, in, static_cast<int>(head));
    a.first_query = first - head * per_head;
    a.last_query = end - head * per_head;
    calls.add(a);
    first = end;
  }
}

// Queries times positions of one sequence.
int64_t work_per_query(const AttentionInputs& in, const SequenceRows& sequence) {
  return positions_seen(sequence, in.sliding_window) + kTile;
}
int64_t work(const AttentionInputs& in, const SequenceRows& sequence) {
  return sequence.num_rows * in.num_heads * work_per_query(in, sequence);
}

// The share of work first .. last - 1 of the batch.
template <class C, class Out>
void run_share(const KernelTable& kernels, const ThreadScratch& scratch, Tensor out,
               const AttentionInputs& in, const RowBatch& batch, int64_t first, int64_t last) {
  int64_t done = 0;
  Calls calls(kernels.attention[cache_type(in.cache->dtype)]);
  for (const SequenceRows& sequence : batch.sequences) {
    const int64_t unit = work_per_query(in, sequence);
    const int64_t queries = sequence.num_rows * in.num_heads;
    const auto query_at = [&](int64_t amount) {
      return std::clamp<int64_t>((amount - done + unit - 1) / unit, 0, queries);
    };
    const int64_t from = first <= done ? 0 : query_at(first);
    const int64_t to = last <= done ? 0 : query_at(last);
    if (from < to) {
      add_queries<C, Out>(calls, sequence_args(in, batch, sequence, scratch), out, in,
                          sequence.num_rows * (in.num_heads / in.cache->num_kv_heads), from, to);
    }
    done += work(in, sequence);
  }
  calls.finish();
}

template <class C, class Out>
void run_batch(const KernelTable& kernels, ThreadPool& pool, Scratch& scratch, Tensor out,
               const AttentionInputs& in, const RowBatch& batch) {
  const int64_t rows = batch.num_rows(), head_dim = in.cache->head_dim;
  const int64_t positions = int64_t{in.cache->num_pages} * kPageSize + rows;
  const size_t bytes = ThreadScratch(Carver(nullptr), rows, positions, head_dim).bytes;
  auto* memory =
      static_cast<char*>(scratch.reserve(bytes * static_cast<size_t>(pool.num_threads())));
  int64_t total = 0;
  for (const SequenceRows& sequence : batch.sequences) total += work(in, sequence);
  pool.parallel_for(total, kWorkPerThread, [&](int64_t first, int64_t last, int thread) {
    const Carver carver(memory + bytes * static_cast<size_t>(thread));
    run_share<C, Out>(kernels, ThreadScratch(carver, rows, positions, head_dim), out, in, batch,
                      first, last);
  });
}

}  // namespace

void tree_attention(const KernelTable& kernels, ThreadPool& pool, Scratch& scratch, Tensor out,
                    const AttentionInputs& in, const RowBatch& batch) {
  const auto run = [&]<class C, class Out>() {
    run_batch<C, Out>(kernels, pool, scratch, out, in, batch);
  };
  switch (in.cache->dtype) {
    case DType::f32:
      return run.operator()<float, float>();
    case DType::i8:
      return run.operator()<int8_t, bf16>();
    default:
      return run.operator()<bf16, bf16>();
  }
}

}  // namespace medusa::cpu
