#pragma once

#include <span>
#include <vector>

#include "decode/step_plan.h"
#include "decode/tree_ladder.h"
#include "medusa/config.h"

namespace medusa {

/// What a step computes beside drafts.
struct StepLoad {
  int decoding = 0;  // sequences that get a token, each with a root's row
  int prompt_rows = 0;
  int max_rows = 0;  // roots and drafts together
};

/// Chooses how many nodes each sequence offers. Adaptive: those that bring most tokens a second, by
/// the measured seconds of a step and the acceptance seen so far; else the whole tree. Any choice
/// is right: it decides how soon tokens come, never which.
class TreePolicy {
 public:
  TreePolicy(const EngineOptions& options, const Tree& tree);

  /// Every step offers the whole of `tree` from now on; not for an adaptive policy.
  void pin(const Tree& tree) { ladder_ = TreeLadder(tree, {}, false); }
  const Tree& tree(int rung) const { return ladder_.tree(rung); }
  bool adaptive() const { return adaptive_; }

  /// Sets `rung` of every sequence, within its guesses.
  void choose(std::span<Sequence* const> drafting, const StepLoad& load);
  /// The same for a step whose heads have yet to run, and what they cost counts; sequences that get
  /// guesses have rung > 0. Returns how many heads are needed.
  int choose_heads(std::span<Sequence* const> drafting, const StepLoad& load);

  /// What became of a step's tree, and how long heads took.
  void observe(const PlanEntry& entry);
  void observe_heads(int num_heads, double seconds);

 private:
  struct Move {
    double gain;  // expected tokens a row
    int index;    // of the sequence
    bool operator<(const Move& other) const { return gain < other.gain; }
  };
  double step_seconds(int rows) const;
  double expected(const Sequence& sequence, int rung) const;  // accepted drafts
  void update_gains();
  void push_move(const Sequence& sequence, int index, int heads);
  void climb(std::span<Sequence* const> drafting, const StepLoad& load, bool heads_are_due);
  int deepest(std::span<Sequence* const> drafting) const;
  bool is_time_to_probe();

  bool adaptive_;
  TreeLadder ladder_;
  std::vector<double> step_seconds_;  // [rows - 1]
  double seconds_per_head_ = 0;
  std::vector<double> prior_, offered_, accepted_;  // [node of the whole tree]
  std::vector<double> gain_;                        // [rung] expected accepted drafts
  std::vector<Move> heap_;
  std::vector<int> moves_;  // sequences in the order in which they climbed
  int plain_steps_ = 0, probe_interval_;
  bool probing_ = false;
};

}  // namespace medusa
