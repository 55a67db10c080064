#pragma once

#include <cstddef>
#include <cstdint>

#include "backend/cuda/kernels.h"
#include "backend/cuda/runtime.h"

// A loop's last kernel, and what it shares with the host.
namespace medusa::cuda {

/// One row of every step: how far below its sequence's root, and where its token comes from: a
/// place among the guesses, or -1, the root.
struct AdvanceRow {
  int32_t sequence, depth, source;
};
/// As NextSequence; pages and stop tokens are AdvanceArgs'.
struct AdvanceSequence {
  int32_t first_row, num_rows, decision;
  int32_t committed, last_start;
  int32_t first_page, first_stop, num_stops;
  int32_t ends;  // whether this step was its last here
};

/// What a step leaves in pinned memory: this, its results and, from the next multiple of 16 bytes
/// on, the inputs it had.
struct alignas(16) StepRecord {
  uint32_t written;  // 1: all of it is
  uint32_t again;    // 1: another step follows
};
struct RecordRing {
  std::byte* records;  // pinned
  size_t stride;
  const uint32_t* halt;  // pinned; not 0: the host wants the loop to end
  int count;             // most steps of a loop
  bool operator==(const RecordRing&) const = default;
};
constexpr size_t record_inputs(size_t result_bytes) {
  return sizeof(StepRecord) + (result_bytes + 15) / 16 * 16;
}
constexpr size_t record_bytes(size_t result_bytes, size_t input_bytes) {
  return record_inputs(result_bytes) + input_bytes;
}

struct AdvanceArgs {
  // Inputs of this step, made those of the next. Arrays that verbs have of their own come twice.
  int32_t* tokens[2];     // (rows)
  int32_t* positions[2];  // (rows)
  AttentionSequence* sequences;
  AttentionTile* tiles;
  int32_t* pages;
  LogitsRow* draws;       // (rows)
  CommitTarget* targets;  // (rows)
  int num_rows, num_sequences, num_tiles, num_splits, window;
  int page_room;  // of `pages`

  // How they follow.
  const AdvanceRow* rows;
  AdvanceSequence* next;  // (sequences)
  const int32_t* page_table;
  const int32_t* stops;
  const int32_t* guesses;
  const int32_t* token_map;  // or null
  const int32_t* kept;
  const int32_t* roots;
  int32_t* steps;  // that the loop has taken

  // What the host reads.
  const void* results;
  const void* inputs;
  size_t result_bytes, input_bytes;  // multiples of 4 and 16
  RecordRing ring;
  bool operator==(const AdvanceArgs&) const = default;
};
/// Records the step; makes the inputs of the next and lets `loop` go round once more, unless a
/// sequence ends, its launches would be others, the ring is full or the host wants it to end.
void advance(const Stream& stream, const AdvanceArgs& args, LoopHandle loop);

}  // namespace medusa::cuda
