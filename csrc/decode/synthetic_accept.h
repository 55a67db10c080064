#pragma once

#include "decode/accept.h"
#include "medusa/config.h"

namespace medusa {

/// For benchmarks of heads that do not exist yet: keeps as many drafted tokens as good heads would,
/// at random, whatever they are. All work of exact acceptance is done; its verdict is ignored, so
/// the text means nothing.
class SyntheticAcceptance final : public ExactAcceptance {
 public:
  /// Tokens a step are `options.synthetic_acceptance_length` on average, where the tree is as deep
  /// as `tree` and the answer goes on: each further node of a longest path is kept with one
  /// probability p, so that 1 + p + p^2 + ... + p^depth is that length.
  SyntheticAcceptance(const EngineOptions& options, const Tree& tree);

 protected:
  int next_node(const PlanEntry& entry, int node, std::span<const int32_t> tokens,
                int32_t drawn) const override;
  bool pure() const override { return false; }

 private:
  double probability_;
};

/// Throws InvalidArgument unless the length is 0 (off) or one that `tree` can have.
void check_synthetic(const EngineOptions& options, const Tree& tree);

}  // namespace medusa
