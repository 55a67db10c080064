// A loop's step after its last verb: recorded for the host, and its inputs made those of the next
// step, byte for byte what the host would lay out. One block.
#include "backend/cuda/advance.h"

#include "backend/cuda/device/loop.cuh"
#include "backend/cuda/device/memory.cuh"
#include "backend/cuda/device/reduce.cuh"
#include "backend/cuda/launch.h"

namespace medusa::cuda {
namespace {

constexpr int kThreads = 256;

struct Total {
  __device__ __forceinline__ static int join(int a, int b) { return a + b; }
};

__device__ StepRecord* record_of(const AdvanceArgs& a, int step) {
  return reinterpret_cast<StepRecord*>(a.ring.records + static_cast<size_t>(step) * a.ring.stride);
}

__device__ void record_step(const AdvanceArgs& a, StepRecord* record) {
  auto* results = reinterpret_cast<int32_t*>(record + 1);
  auto* inputs = reinterpret_cast<std::byte*>(record) + record_inputs(a.result_bytes);
  for (size_t i = threadIdx.x; i < a.result_bytes / 4; i += kThreads) {
    results[i] = static_cast<const int32_t*>(a.results)[i];
  }
  for (size_t at = threadIdx.x * 16; at < a.input_bytes; at += kThreads * 16) {
    store_16(inputs + at, load_16(static_cast<const std::byte*>(a.inputs) + at));
  }
}

__device__ bool is_stop(const AdvanceArgs& a, const AdvanceSequence& s, int32_t token) {
  for (int i = 0; i < s.num_stops; ++i) {
    if (a.stops[s.first_stop + i] == token) return true;
  }
  return false;
}

// By a warp: the rows that were kept are committed, and what came of them may be the last.
__device__ void advance_sequence(const AdvanceArgs& a, AdvanceSequence& to) {
  const AdvanceSequence s = to;
  int kept = 0;
  bool stops = lane() == 0 && is_stop(a, s, a.roots[s.decision]);
  for (int row = lane(); row < s.num_rows; row += kWarp) {
    if (a.kept[s.first_row + row] == 0) continue;
    ++kept;
    stops = stops || (row > 0 && is_stop(a, s, a.tokens[0][s.first_row + row]));
  }
  const int committed = s.committed + reduce_warp<Total>(kept);
  const bool ends = ballot(stops) != 0 || committed > s.last_start;
  if (lane() != 0) return;
  to.committed = committed;
  to.ends = ends ? 1 : 0;
}

// By one thread: where each sequence's pages begin. False where no step follows.
__device__ bool place_sequences(const AdvanceArgs& a, int step) {
  bool again = step + 1 < a.ring.count && load_from_host(a.ring.halt) == 0;
  int pages = 0;
  for (int i = 0; i < a.num_sequences; ++i) {
    const AdvanceSequence s = a.next[i];
    a.sequences[i].committed = s.committed;
    a.sequences[i].first_page = pages;
    pages += (s.committed + kAttentionChunk - 1) / kAttentionChunk;
    again = again && s.ends == 0;
  }
  return again && pages <= a.page_room;
}

__device__ void place_row(const AdvanceArgs& a, int at) {
  const AdvanceRow row = a.rows[at];
  const AdvanceSequence s = a.next[row.sequence];
  const int32_t guess = row.source < 0 ? 0 : a.guesses[row.source];
  const int32_t drafted = a.token_map == nullptr ? guess : a.token_map[guess];
  const int32_t token = row.source < 0 ? a.roots[s.decision] : drafted;
  const int position = s.committed + row.depth;
  for (int copy = 0; copy < 2; ++copy) {
    a.tokens[copy][at] = token;
    a.positions[copy][at] = position;
  }
  a.draws[at].position = position + 1;
  a.targets[at] = {at, a.page_table[s.first_page + position / kAttentionChunk], position};
}

__device__ void place_pages(const AdvanceArgs& a, int index) {
  const AdvanceSequence s = a.next[index];
  int32_t* to = a.pages + a.sequences[index].first_page;
  const int count = (s.committed + kAttentionChunk - 1) / kAttentionChunk;
  for (int i = threadIdx.x; i < count; i += kThreads) to[i] = a.page_table[s.first_page + i];
}

// As AttentionPlan::add_tiles.
__device__ void place_tile(const AdvanceArgs& a, AttentionTile& tile) {
  int least = a.positions[1][tile.first_row], most = least;
  for (int row = 1; row < tile.rows; ++row) {
    const int position = a.positions[1][tile.first_row + row];
    least = min(least, position);
    most = max(most, position);
  }
  const int lowest = a.window > 0 ? max(0, least - a.window + 1) : 0;
  tile.first_chunk = lowest / kAttentionChunk;
  tile.last_chunk = most / kAttentionChunk;
  tile.last_position = most;
}

// Whether the next step's attention has the launch that this one's had.
__device__ bool same_splits(const AdvanceArgs& a) {
  int most = 1;
  for (int i = 0; i < a.num_tiles; ++i) most = max(most, attention_splits(a.tiles[i]));
  return most <= a.num_splits && most > a.num_splits / 2;
}

__global__ void __launch_bounds__(kThreads) advance_kernel(AdvanceArgs a, LoopHandle loop) {
  MEDUSA_SHARED(int, again, 1);
  const int step = *a.steps;
  StepRecord* record = record_of(a, step);
  record_step(a, record);
  for (int i = warp(); i < a.num_sequences; i += kThreads / kWarp) advance_sequence(a, a.next[i]);
  sync_block();
  if (threadIdx.x == 0) again[0] = place_sequences(a, step) ? 1 : 0;
  sync_block();
  if (again[0] != 0) {
    for (int row = threadIdx.x; row < a.num_rows; row += kThreads) place_row(a, row);
    for (int i = 0; i < a.num_sequences; ++i) place_pages(a, i);
    sync_block();
    for (int i = threadIdx.x; i < a.num_tiles; i += kThreads) place_tile(a, a.tiles[i]);
    sync_block();
  }
  if (threadIdx.x != 0) return;
  const bool goes_on = again[0] != 0 && same_splits(a);
  *a.steps = step + 1;
  set_loop(loop, goes_on);
  record->again = goes_on ? 1 : 0;
  show_to_host(&record->written, 1);
}

}  // namespace

// Queued where a loop is made, never written down: the list is the step's work without it.
void advance(const Stream& stream, const AdvanceArgs& a, LoopHandle loop) {
  start(stream, {.threads = kThreads}, advance_kernel, a, loop);
}

}  // namespace medusa::cuda
