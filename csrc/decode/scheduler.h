#pragma once

#include <deque>
#include <vector>

#include "decode/step_plan.h"
#include "medusa/config.h"
#include "model/kv_cache.h"

namespace medusa {

/// Decides what each forward pass computes. First come, first served; a sequence starts when a slot
/// and pages for all it may ever need are free, so that none that runs has to be stopped.
class Scheduler {
 public:
  Scheduler(const EngineOptions& options, const Tree& tree);

  void enqueue(Sequence* sequence);
  /// Takes a waiting or running sequence out and frees its pages.
  void remove(Sequence* sequence, KvCache& cache);
  bool idle() const { return waiting_.empty() && running_.empty(); }

  /// All decoding sequences, then prompt chunks as far as max_num_batched_tokens allows.
  void plan(KvCache& cache, StepPlan& plan);

 private:
  void admit(KvCache& cache);
  int add_decoding(const KvCache& cache, StepPlan& plan) const;
  void add_prompts(const KvCache& cache, int rows_left, StepPlan& plan) const;
  const Tree& tree_for(const Sequence& sequence) const;

  int max_rows_;
  const Tree& tree_;
  Tree root_only_ = Tree::root_only();
  std::deque<Sequence*> waiting_;
  std::vector<Sequence*> running_;
  std::vector<int> free_slots_;
};

}  // namespace medusa
