#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "backend/backend.h"
#include "decode/step_plan.h"

namespace medusa {

/// The child of `node` that holds `token`, or -1. `tokens`: (tree size).
int child_with_token(const Tree& tree, int node, std::span<const int32_t> tokens, int32_t token);

/// Exact acceptance: at a node the token plain decoding would have drawn there is drawn; a child
/// that holds it is descended into, else it is the next root. All sequences descend together, one
/// level a call of Backend::sample, so only nodes on accepted paths are ever drawn at.
class ExactAcceptance {
 public:
  explicit ExactAcceptance(int max_num_seqs);
  virtual ~ExactAcceptance() = default;

  /// Fills accepted_rows and next_root of every entry that has logits; a prompt chunk accepts all
  /// its rows.
  void accept(Backend& backend, StepPlan& plan, const RowBatch& batch, Tensor logits);

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
