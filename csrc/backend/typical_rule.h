#pragma once

#include <limits>
#include <span>

// Typical acceptance (Medusa, section 2.3.1), the one text of it for every back end: constexpr, so
// that device code compiles it too, and in logarithms, so that it needs no function whose last bits
// differ between devices.
namespace medusa {

/// A drafted token of probability p, drawn where the distribution's entropy is H, is accepted when
/// p > min(posterior_threshold, posterior_alpha · exp(-H)).
struct TypicalRule {
  float log_threshold;  // log(posterior_threshold)
  float log_alpha;      // log(posterior_alpha)

  constexpr bool accepts(float log_prob, float entropy) const {
    const float bound = log_alpha - entropy;
    return log_prob > (bound < log_threshold ? bound : log_threshold);
  }
};

/// A candidate tree and what the backbone makes of it. Values are read only where every node above
/// is accepted, so others need not be set.
struct JudgedTree {
  std::span<const int> parents;      // (nodes) -1 for the root, which comes first; sorted by depth
  std::span<const int> depths;       // (nodes)
  std::span<const float> log_probs;  // (nodes) of the node's token at its parent; unused: [0]
  std::span<const float> entropies;  // (nodes) of the distribution at the node; unused at leaves
};

inline constexpr float kRejected = -std::numeric_limits<float>::infinity();

/// The last node of the accepted path: the deepest node whose path is accepted throughout; of
/// several the one whose log-probabilities, added from the root down, have the greatest sum; of
/// several still the first. The root is always accepted. `scores`, (nodes): left with those sums,
/// kRejected where the path is not accepted.
constexpr int typical_path_end(const TypicalRule& rule, const JudgedTree& tree,
                               std::span<float> scores) {
  scores[0] = 0;
  int best = 0;
  for (size_t node = 1; node < tree.parents.size(); ++node) {
    const auto parent = static_cast<size_t>(tree.parents[node]);
    scores[node] = kRejected;
    if (scores[parent] == kRejected) continue;
    if (!rule.accepts(tree.log_probs[node], tree.entropies[parent])) continue;
    scores[node] = scores[parent] + tree.log_probs[node];
    const auto leader = static_cast<size_t>(best);
    const bool deeper = tree.depths[node] > tree.depths[leader];
    if (deeper || scores[node] > scores[leader]) best = static_cast<int>(node);
  }
  return best;
}

}  // namespace medusa
