#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "backend/backend.h"
#include "decode/step_plan.h"
#include "decode/step_results.h"

namespace medusa {

/// The child of `node` that holds `token`, or -1. `tokens`: (tree size).
int child_with_token(const Tree& tree, int node, std::span<const int32_t> tokens, int32_t token);

/// Decides which drafted rows a step keeps, and which token comes next: on the device where it can,
/// else by a walk on the host, level by level.
class Acceptance {
 public:
  /// `rule`: of sequences that are judged by it.
  Acceptance(int max_num_seqs, const TypicalRule& rule) : rule_(rule) {
    sequences_.reserve(max_num_seqs);
  }
  virtual ~Acceptance() = default;

  /// On the device, from logits that need not have been computed: leaves the decisions about every
  /// entry, by its `decision`, in `out`. A prompt chunk accepts all its rows. False, with nothing
  /// done: it is for walk().
  bool accept(Backend& backend, const StepPlan& plan, const RowBatch& batch,
              const LogitsProduct& product, const StepResults& out);

  /// On the host, level by level: fills accepted_rows and path of every entry, and next_root of
  /// those that have logits.
  virtual void walk(Backend& backend, StepPlan& plan, const RowBatch& batch, Tensor logits) = 0;

 protected:
  /// Whether a drafting sequence is judged by the typical rule.
  virtual bool typical() const { return false; }
  /// Whether a device may decide.
  virtual bool pure() const { return true; }

  TypicalRule rule_;

 private:
  AcceptSequence sequence_of(const PlanEntry& entry) const;
  std::vector<AcceptSequence> sequences_;  // [decision]
};

/// The method that `options` name. `tree`: the largest; `max_logits_rows`: most that a step may
/// have. Throws InvalidArgument for thresholds out of range.
std::unique_ptr<Acceptance> make_acceptance(const EngineOptions& options, const Tree& tree,
                                            int max_logits_rows);

/// Exact acceptance: at a node the token plain decoding would have drawn there is drawn; a child
/// that holds it is descended into, else it is the next root. All sequences descend together, one
/// level a call of Backend::sample, so only nodes on accepted paths are ever drawn at.
class ExactAcceptance : public Acceptance {
 public:
  explicit ExactAcceptance(int max_num_seqs);

  void walk(Backend& backend, StepPlan& plan, const RowBatch& batch, Tensor logits) override;

 protected:
  /// The child of `node` to go on with, or -1. `tokens`: (tree size); `drawn`: at `node`.
  virtual int next_node(const PlanEntry& entry, int node, std::span<const int32_t> tokens,
                        int32_t drawn) const;

 private:
  struct Cursor {
    PlanEntry* entry;
    int node;  // of the tree; for a prompt: 0
  };
  void start(StepPlan& plan);
  void draw(Backend& backend, Tensor logits);
  void descend(const RowBatch& batch);

  std::vector<Cursor> cursors_;
  std::vector<SampleRow> rows_;
  std::vector<int32_t> drawn_;
};

}  // namespace medusa
