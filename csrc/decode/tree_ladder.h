#pragma once

#include <span>
#include <vector>

#include "medusa/tree.h"

namespace medusa {

/// A tree and smaller ones made of its best nodes, all prepared at load: rung 0 is the root alone,
/// the last the whole tree.
class TreeLadder {
 public:
  /// `probability`: [node] of being accepted, or empty; the best nodes are then the first of
  /// tree.order(). Without `intermediate` there are only the root and the whole tree.
  TreeLadder(const Tree& tree, std::span<const float> probability, bool intermediate);

  int num_rungs() const { return static_cast<int>(trees_.size()); }
  const Tree& tree(int rung) const { return trees_[rung]; }
  /// Nodes of the whole tree that are nodes 0, 1, ... of the rung's.
  std::span<const int> nodes(int rung) const { return nodes_[rung]; }
  int rung_of(const Tree& tree) const { return static_cast<int>(&tree - trees_.data()); }

 private:
  void add(const Tree& tree, std::span<const int> best, int size);

  std::vector<Tree> trees_;
  std::vector<std::vector<int>> nodes_;
};

}  // namespace medusa
