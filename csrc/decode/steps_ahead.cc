#include "decode/steps_ahead.h"

#include <algorithm>

#include "backend/ops.h"

namespace medusa {
namespace {

// Where there are fewer free pages, for fewer steps.
void reserve_pages(const PlanEntry& entry, int steps, KvCache& cache) {
  Sequence& sequence = *entry.sequence;
  const int per_step = entry.tree->depth() + 1;
  for (; steps > 0; steps /= 2) {
    const auto wanted =
        std::min<int64_t>(sequence.size() + int64_t{steps} * per_step, sequence.max_size);
    if (cache.reserve(sequence.slot, static_cast<int>(wanted))) break;
  }
  sequence.reserves_ahead = true;
}

// A step draws one token at least, and one that has drafts leaves room for the next to have some:
// see can_draft() of the scheduler. Its rows have pages, and positions within the answer.
int last_start(const PlanEntry& entry, const KvCache& cache) {
  const Sequence& sequence = *entry.sequence;
  const int depth = entry.tree->depth();
  const int pages = cache.held_pages(sequence.slot) * kPageSize - 1 - depth;
  const int answer = sequence.max_size - (depth > 0 ? std::max(4, depth + 1) : 2);
  return std::min(pages, answer);
}

}  // namespace

StepsAhead::StepsAhead(int max_rows, int max_num_seqs) {
  sequences_.reserve(max_num_seqs);
  sources_.reserve(max_rows);
}

// False where this step is the sequence's last of its shape.
bool StepsAhead::add(Backend& backend, const PlanEntry& entry, KvCache& cache, int top_k,
                     int guessed) {
  const Sequence& sequence = *entry.sequence;
  reserve_pages(entry, backend.steps_ahead(), cache);
  sequences_.push_back({.decision = entry.decision,
                        .last_start = last_start(entry, cache),
                        .pages = cache.held(sequence.slot),
                        .stop_tokens = sequence.params.stop_token_ids});
  const Tree& tree = *entry.tree;
  sources_.push_back(-1);
  for (int node = 1; node < tree.size(); ++node) {
    const int head = tree.depths()[node] - 1;
    sources_.push_back((head * guessed + entry.decision) * top_k + tree.ranks()[node]);
  }
  return entry.committed < sequences_.back().last_start;
}

void StepsAhead::offer(Backend& backend, StepPlan& plan, const RowBatch& batch,
                       const StepResults& results, KvCache& cache, int top_k, int guessed,
                       Tensor token_map) {
  sequences_.clear();
  sources_.clear();
  for (const PlanEntry& entry : plan) {
    if (!add(backend, entry, cache, top_k, guessed)) return;
  }
  ops::go_on(backend, {results.decisions(), results.guesses(), token_map, sources_, sequences_},
             batch);
}

}  // namespace medusa
