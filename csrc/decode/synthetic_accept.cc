#include "decode/synthetic_accept.h"

#include "base/check.h"
#include "base/philox.h"

namespace medusa {
namespace {

constexpr uint32_t kStream = 0x53594e54;  // "SYNT": noise that no sampler draws from

double tokens_a_step(double probability, int depth) {
  double tokens = 1, power = 1;
  for (int i = 0; i < depth; ++i) tokens += power *= probability;
  return tokens;
}

double solve(double length, int depth) {
  double low = 0, high = 1;
  for (int i = 0; i < 60; ++i) {
    const double middle = (low + high) / 2;
    (tokens_a_step(middle, depth) < length ? low : high) = middle;
  }
  return high;
}

// In [0, 1): a function of request and position alone, so that runs repeat.
double uniform(uint64_t seed, int position) {
  return philox({static_cast<uint32_t>(position), kStream, 0, 0}, seed)[0] * 0x1p-32;
}

}  // namespace

SyntheticAcceptance::SyntheticAcceptance(const EngineOptions& options, const Tree& tree)
    : ExactAcceptance(options.max_num_seqs),
      probability_(solve(options.synthetic_acceptance_length, tree.depth())) {}

// Nodes are sorted by depth, so the last one ends a longest path.
int SyntheticAcceptance::next_node(const PlanEntry& entry, int node, std::span<const int32_t>,
                                   int32_t) const {
  int child = entry.tree->size() - 1;
  if (node == child) return -1;
  while (entry.tree->parents()[child] != node) child = entry.tree->parents()[child];
  const int position = entry.committed + entry.tree->depths()[child];
  return uniform(entry.sequence->params.seed, position) < probability_ ? child : -1;
}

void check_synthetic(const EngineOptions& options, const Tree& tree) {
  const float length = options.synthetic_acceptance_length;
  if (length == 0) return;
  check(tree.size() > 1, "synthetic_acceptance_length: expected a tree of more than its root");
  check(length >= 1 && length <= static_cast<float>(tree.depth() + 1),
        "synthetic_acceptance_length: expected 1 to ", tree.depth() + 1,
        ", what a tree of that depth can yield, or 0 for none, found ", length);
}

}  // namespace medusa
