#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace medusa {

/// A candidate tree (Medusa, section 2.1.2): node 0 is the root, the token already known to be
/// next; node n > 0 is the ranks_[n]-th guess of head depths_[n] - 1 below parents_[n].
/// Nodes are sorted by (depth, path), so a parent always precedes its children.
class Tree {
 public:
  /// `paths`: one list of ranks per node but the root, in any order (which order() remembers); all
  /// prefixes must be present.
  /// Throws InvalidArgument for empty, duplicate or orphaned paths, negative ranks, or more than
  /// kMaxNodes nodes.
  explicit Tree(std::vector<std::vector<int>> paths);

  static Tree root_only();
  /// The best guess of each of `depth` heads.
  static Tree chain(int depth);
  /// One of the trees published with Medusa, e.g. "mc_sim_7b_63".
  static Tree stock(std::string_view name);
  static std::vector<std::string> stock_names();
  /// The paths of a stock tree in their published order, best first: every prefix is a tree.
  static std::vector<std::vector<int>> stock_paths(std::string_view name);

  static constexpr int kMaxNodes = 256;

  int size() const { return static_cast<int>(parents_.size()); }
  int depth() const { return depth_; }        // of the deepest node; 0 for root_only()
  int max_rank() const { return max_rank_; }  // -1 for root_only()

  std::span<const int> parents() const { return parents_; }  // (size), -1 for the root
  std::span<const int> depths() const { return depths_; }    // (size)
  std::span<const int> ranks() const { return ranks_; }      // (size), -1 for the root
  /// Children of `node` are consecutive: first_child(node) .. first_child(node) +
  /// num_children(node).
  int first_child(int node) const { return first_child_[node]; }
  int num_children(int node) const { return num_children_[node]; }

  const std::vector<std::vector<int>>& paths() const { return paths_; }  // sorted, root left out

  /// All nodes, the root first, each behind its parent, otherwise as their paths were given. Where
  /// that was best first, the first n nodes are the best tree of n nodes.
  std::span<const int> order() const { return order_; }  // (size)
  /// The tree of `nodes`, root included; throws InvalidArgument where a parent is missing.
  Tree subtree(std::span<const int> nodes) const;

  /// The buffers of the reference implementation (generate_medusa_buffers), for comparison.
  std::vector<int> tree_indices(int top_k) const;          // (size)
  std::vector<std::vector<int>> attention_mask() const;    // (size, size) of 0 and 1
  std::vector<std::vector<int>> retrieve_indices() const;  // (leaves, depth + 1), padded by -1

 private:
  Tree() = default;  // the root alone
  void add_child(int parent, int rank);
  void remember_order(const std::vector<std::vector<int>>& given);

  std::vector<std::vector<int>> paths_;
  std::vector<int> order_{0};
  std::vector<int> parents_{-1}, depths_{0}, ranks_{-1}, first_child_{0}, num_children_{0};
  int depth_ = 0;
  int max_rank_ = -1;
};

}  // namespace medusa
