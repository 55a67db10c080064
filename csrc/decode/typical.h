#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "backend/typical_rule.h"
#include "decode/accept.h"

namespace medusa {

/// Typical acceptance: of a drafting sequence the longest path of likely tokens is kept, and the
/// likeliest token after it is the next root, at any temperature: nothing is drawn at random.
/// Requests that do not draft are sampled as ever. All sequences are judged together, one level of
/// their trees a call of Backend::posterior, and only below accepted nodes.
class TypicalAcceptance final : public Acceptance {
 public:
  TypicalAcceptance(const EngineOptions& options, int max_depth, int max_logits_rows);

  void walk(Backend& backend, StepPlan& plan, const RowBatch& batch, Tensor logits) override;

 private:
  bool typical() const override { return true; }

  struct Node {
    PlanEntry* entry;
    int node;  // of the tree
  };
  void start(StepPlan& plan);
  void judge(Backend& backend, const RowBatch& batch, Tensor logits);
  void descend();
  void reach(PlanEntry& entry, int node);
  std::span<const int32_t> path_to(const Node& node, const RowBatch& batch);
  void keep_path(PlanEntry& entry, const RowBatch& batch);
  void draw_roots(Backend& backend, StepPlan& plan, Tensor logits);

  int max_depth_;
  std::vector<Node> level_, next_level_;  // accepted nodes that have children
  std::vector<PosteriorRow> rows_;
  std::vector<float> log_probs_, entropies_, scores_;  // (logits rows), see JudgedTree
  std::vector<int32_t> paths_;                         // (logits rows, max depth) tokens
  std::vector<SampleRow> root_rows_;
  std::vector<int32_t> roots_;
};

/// Throws InvalidArgument naming a parameter that has no meaning where nothing is drawn at random.
void check_typical(const SamplingParams& params);

}  // namespace medusa
