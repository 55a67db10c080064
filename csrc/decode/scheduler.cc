#include "decode/scheduler.h"

#include <algorithm>
#include <numeric>

namespace medusa {

Scheduler::Scheduler(const EngineOptions& options, const Tree& tree)
    : max_rows_(options.max_num_batched_tokens), tree_(tree), free_slots_(options.max_num_seqs) {
  std::iota(free_slots_.rbegin(), free_slots_.rend(), 0);
  running_.reserve(options.max_num_seqs);
}

void Scheduler::enqueue(Sequence* sequence) { waiting_.push_back(sequence); }

void Scheduler::remove(Sequence* sequence, KvCache& cache) {
  std::erase(waiting_, sequence);
  std::erase(running_, sequence);
  if (sequence->slot < 0) return;
  cache.release(sequence->slot);
  free_slots_.push_back(sequence->slot);
  sequence->slot = -1;
}

void Scheduler::admit(KvCache& cache) {
  while (!waiting_.empty() && !free_slots_.empty()) {
    Sequence* sequence = waiting_.front();
    const int slot = free_slots_.back();
    if (!cache.reserve(slot, sequence->max_size)) return;
    free_slots_.pop_back();
    waiting_.pop_front();
    sequence->slot = slot;
    running_.push_back(sequence);
  }
}

void Scheduler::plan(KvCache& cache, StepPlan& plan) {
  plan.clear();
  admit(cache);
  const int rows = add_decoding(cache, plan);
  add_prompts(cache, max_rows_ - rows, plan);
}

// A drafted token beyond the sequence's last would be thrown away.
const Tree& Scheduler::tree_for(const Sequence& sequence) const {
  const bool room = sequence.max_size - sequence.size() > 1;
  return sequence.has_guesses && room ? tree_ : root_only_;
}

int Scheduler::add_decoding(const KvCache& cache, StepPlan& plan) const {
  int rows = 0;
  for (Sequence* sequence : running_) {
    const int committed = cache.committed(sequence->slot);
    if (committed + 1 != sequence->size() || sequence->size() == sequence->prompt_size) continue;
    PlanEntry& entry = plan.add();
    entry.sequence = sequence;
    entry.tree = &tree_for(*sequence);
    entry.committed = committed;
    entry.num_rows = entry.num_logits_rows = entry.tree->size();
    rows += entry.num_rows;
  }
  return rows;
}

void Scheduler::add_prompts(const KvCache& cache, int rows_left, StepPlan& plan) const {
  for (Sequence* sequence : running_) {
    const int committed = cache.committed(sequence->slot);
    const int missing = sequence->prompt_size - committed;
    if (missing <= 0 || rows_left == 0) continue;
    PlanEntry& entry = plan.add();
    entry.sequence = sequence;
    entry.tree = nullptr;
    entry.committed = committed;
    entry.num_rows = std::min(missing, rows_left);
    entry.num_logits_rows = entry.num_rows == missing ? 1 : 0;
    rows_left -= entry.num_rows;
  }
}

}  // namespace medusa
