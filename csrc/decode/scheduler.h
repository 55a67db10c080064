#pragma once

#include <list>
#include <span>
#include <vector>

#include "decode/step_plan.h"
#include "decode/tree_policy.h"
#include "medusa/config.h"
#include "model/kv_cache.h"

namespace medusa {

/// Decides what each forward pass computes. Requests start in order of arrival, as slots and pages
/// become free, and get pages as they grow. Who came first has priority: where pages run out the
/// youngest that runs gives its own back and waits at the head of the queue, to compute them again.
class Scheduler {
 public:
  Scheduler(const EngineOptions& options, const Tree& tree);

  void enqueue(Sequence* sequence);
  /// Takes a waiting or running sequence out and frees its pages.
  void remove(Sequence* sequence, KvCache& cache);
  bool idle() const { return waiting_.empty() && running_.empty(); }

  /// All decoding sequences, then chunks of prompts as far as max_num_batched_tokens allows.
  void plan(KvCache& cache, StepPlan& plan);
  /// Before a step's tokens are known: chooses who gets guesses, and from how many heads.
  /// Returns the most heads anybody gets; `guessed` are those sequences, in order of the plan.
  int choose_heads(StepPlan& plan, std::vector<PlanEntry*>& guessed);

  /// Whether, as far as can be told before the step, the next plan has the same rows: everybody
  /// decodes by the tree that is to come again, and nobody waits.
  bool repeats(const StepPlan& plan) const;

  TreePolicy& trees() { return trees_; }

 private:
  using Running = std::list<Sequence*>::const_iterator;

  void admit(KvCache& cache);
  bool start(Sequence& sequence, KvCache& cache);
  bool may_adopt(const Sequence& sequence) const;
  void adopt(Sequence& sequence, KvCache& cache) const;
  int claimed_pages(const KvCache& cache) const;
  bool is_decoding(const Sequence& sequence, const KvCache& cache) const;
  void claim_pages(KvCache& cache);
  bool has_twin_before(Running it, const KvCache& cache) const;
  void give_back_ahead(KvCache& cache);
  bool make_room(Sequence& sequence, int positions, KvCache& cache);
  void preempt_youngest(KvCache& cache);
  void free_slot(Sequence& sequence, KvCache& cache);
  void choose_trees(const KvCache& cache);
  const Tree& fitting_tree(Sequence& sequence, KvCache& cache) const;
  void add_decoding(KvCache& cache, StepPlan& plan);
  void add_prompts(const KvCache& cache, int rows_left, StepPlan& plan) const;

  int max_rows_;
  bool share_prefixes_;
  TreePolicy trees_;
  // A sequence is a node that moves from list to list. Both are in order of arrival, and whoever
  // waits came after all who run.
  std::list<Sequence*> waiting_, running_;
  std::vector<int> free_slots_;
  std::vector<Sequence*> drafting_;
};

}  // namespace medusa
