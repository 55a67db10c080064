#pragma once

#include <chrono>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "medusa/engine.h"
#include "medusa/sampling.h"
#include "medusa/tree.h"

namespace medusa {

using Clock = std::chrono::steady_clock;

inline double seconds_between(Clock::time_point from, Clock::time_point to) {
  return std::chrono::duration<double>(to - from).count();
}

/// Accepted drafts of a sequence, and how many were to be expected; old ones fade.
struct SeenAcceptance {
  double accepted = 0;
  double expected = 0;
};

/// One request from submit to forget.
struct Sequence {
  int64_t id = 0;
  SamplingParams params;
  std::vector<int32_t> tokens;  // prompt, then answer; never grows beyond its reserve
  int prompt_size = 0;
  int max_size = 0;              // of tokens
  int slot = -1;                 // of the cache; -1: waiting or finished
  bool reserves_ahead = false;   // has pages for steps that are not planned yet
  bool waits_for_twin = false;   // somebody else computes its next page
  bool drafts = false;           // heads may run for it
  int num_guesses = 0;           // heads whose guesses belong to the present root
  std::vector<int32_t> guesses;  // (tree depth, top_k) of the heads
  int rung = 0;                  // of the policy's trees: the one chosen for the next step
  SeenAcceptance seen;
  FinishReason finish_reason = FinishReason::none;
  int32_t stop_token = -1;
  std::vector<TokenLogprob> logprobs;         // (answer, logprobs_width())
  std::vector<TokenLogprob> prompt_logprobs;  // (prompt_size - 1, prompt_logprobs_width())
  Metrics metrics;
  Clock::time_point submitted, first_token, last_token;

  bool finished() const { return finish_reason != FinishReason::none; }
  int size() const { return static_cast<int>(tokens.size()); }
  // Entries a token has: its own and those of the likeliest; 0: none were asked for.
  size_t logprobs_width() const { return static_cast<size_t>(params.logprobs + 1); }
  size_t prompt_logprobs_width() const { return static_cast<size_t>(params.prompt_logprobs + 1); }
  bool lacks_prompt_logprobs() const {
    return prompt_logprobs.size() < static_cast<size_t>(prompt_size - 1) * prompt_logprobs_width();
  }
  std::span<const int32_t> prompt() const { return std::span(tokens).first(prompt_size); }
  std::span<const int32_t> answer() const { return std::span(tokens).subspan(prompt_size); }
};

/// A sequence's share of one forward pass.
struct PlanEntry {
  Sequence* sequence = nullptr;
  const Tree* tree = nullptr;  // null: a chunk of the prompt, or of all tokens after a preemption
  int committed = 0;           // positions in the cache before the step
  int first_row = 0;
  int num_rows = 0;
  int first_logits_row = 0;
  int num_logits_rows = 0;  // 0: there is more to compute before the next token
  int decision = 0;         // its place among the step's Decisions

  // What acceptance decided.
  std::vector<int32_t> accepted_rows;  // of the batch, in order of position
  std::vector<int32_t> path;           // of a tree: tokens of its accepted rows, root left out
  int32_t next_root = -1;

  bool is_prefill() const { return tree == nullptr; }
  /// The logits row of a row of the batch. The last rows of an entry have logits.
  int logits_row(int row) const {
    return first_logits_row + row - (first_row + num_rows - num_logits_rows);
  }
  void accept_first(int count) {
    for (int i = 0; i < count; ++i) accepted_rows.push_back(first_row + i);
  }
};

/// Everything one forward pass computes. Entries beyond `size` are spare capacity.
struct StepPlan {
  std::vector<PlanEntry> entries;
  int size = 0;

  void clear() { size = 0; }
  PlanEntry& add() {
    PlanEntry& entry = entries[size++];
    entry.accepted_rows.clear();
    entry.path.clear();
    entry.next_root = -1;
    return entry;
  }
  std::span<PlanEntry> from(int first) { return std::span(entries).subspan(first, size - first); }
  /// Takes entries without rows out, from `first` on.
  void drop_empty(int first) {
    int kept = first;
    for (int i = first; i < size; ++i) {
      if (entries[i].num_rows > 0) std::swap(entries[kept++], entries[i]);
    }
    size = kept;
  }
  PlanEntry* begin() { return entries.data(); }
  PlanEntry* end() { return entries.data() + size; }
  const PlanEntry* begin() const { return entries.data(); }
  const PlanEntry* end() const { return entries.data() + size; }
};

}  // namespace medusa
