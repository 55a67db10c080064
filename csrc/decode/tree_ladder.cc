#include "decode/tree_ladder.h"

#include <algorithm>

namespace medusa {
namespace {

constexpr int kSizes[] = {1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 40, 48, 64, 96, 128, 192};

// Most probable first; a node never comes before its parent, even if it is measured to be likelier.
std::vector<int> best_first(const Tree& tree, std::span<const float> probability) {
  std::vector<int> order(tree.order().begin(), tree.order().end());
  if (probability.empty()) return order;
  std::vector<float> bound(probability.begin(), probability.end());
  for (int node = 1; node < tree.size(); ++node) {
    bound[node] = std::min(bound[node], bound[tree.parents()[node]]);
  }
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return bound[a] > bound[b]; });
  return order;
}

}  // namespace

TreeLadder::TreeLadder(const Tree& tree, std::span<const float> probability, bool intermediate) {
  const std::vector<int> order = best_first(tree, probability);
  for (const int size : kSizes) {
    if (size < tree.size() && (intermediate || size == 1)) add(tree, order, size);
  }
  add(tree, order, tree.size());
}

void TreeLadder::add(const Tree& tree, std::span<const int> best, int size) {
  std::vector<int> nodes(best.begin(), best.begin() + size);
  std::sort(nodes.begin(), nodes.end());
  trees_.push_back(tree.subtree(nodes));
  nodes_.push_back(std::move(nodes));
}

}  // namespace medusa
