#include "medusa/tree.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "medusa/error.h"

namespace medusa {
namespace {

using Paths = std::vector<std::vector<int>>;

// The example of the reference implementation's notebook (medusa_introduction.ipynb).
TEST(Tree, matches_the_reference_buffers) {
  const Tree tree({{0}, {0, 0}, {0, 1}, {0, 2}, {1}, {1, 0}, {1, 1}, {1, 2}});
  EXPECT_EQ(tree.tree_indices(10), (std::vector<int>{0, 1, 2, 11, 12, 13, 11, 12, 13}));
  EXPECT_EQ(tree.retrieve_indices(),
            (Paths{{0, 2, 8}, {0, 2, 7}, {0, 2, 6}, {0, 1, 5}, {0, 1, 4}, {0, 1, 3}}));
}

TEST(Tree, mask_row_is_the_node_and_its_ancestors) {
  const Tree tree({{1}, {0}, {0, 3}});
  EXPECT_EQ(tree.attention_mask(), (Paths{{1, 0, 0, 0}, {1, 1, 0, 0}, {1, 0, 1, 0}, {1, 1, 0, 1}}));
}

TEST(Tree, children_are_consecutive_and_follow_their_parent) {
  const Tree tree = Tree::stock("mc_sim_7b_63");
  for (int node = 0; node < tree.size(); ++node) {
    for (int i = 0; i < tree.num_children(node); ++i) {
      EXPECT_EQ(tree.parents()[tree.first_child(node) + i], node);
    }
    EXPECT_LT(tree.parents()[node], node);
  }
}

TEST(Tree, every_prefix_of_a_stock_tree_is_a_tree) {
  for (const std::string& name : Tree::stock_names()) {
    Paths paths = Tree::stock_paths(name);
    EXPECT_EQ(paths.size(), 63u) << name;
    for (; !paths.empty(); paths.pop_back()) {
      EXPECT_EQ(Tree(paths).size(), static_cast<int>(paths.size()) + 1);
    }
  }
}

TEST(Tree, remembers_the_order_of_its_paths_with_parents_first) {
  const Tree tree({{0, 2}, {1}, {0}, {0, 0}});
  EXPECT_EQ(tree.paths(), (Paths{{0}, {1}, {0, 0}, {0, 2}}));
  EXPECT_TRUE(std::ranges::equal(tree.order(), std::vector<int>{0, 1, 4, 2, 3}));
  EXPECT_EQ(tree.subtree(tree.order().first(3)).paths(), (Paths{{0}, {0, 2}}));
  EXPECT_EQ(tree.subtree(tree.order().first(1)).size(), 1);
  EXPECT_THROW(tree.subtree(std::vector<int>{0, 4}), InvalidArgument);
}

TEST(Tree, root_only_is_plain_decoding) {
  const Tree tree = Tree::root_only();
  EXPECT_EQ(tree.size(), 1);
  EXPECT_EQ(tree.depth(), 0);
  EXPECT_EQ(tree.retrieve_indices(), (Paths{{0}}));
}

TEST(Tree, refuses_what_is_no_tree) {
  EXPECT_THROW(Tree(Paths{}), InvalidArgument);
  EXPECT_THROW(Tree(Paths{{}}), InvalidArgument);
  EXPECT_THROW(Tree(Paths{{0, 0}}), InvalidArgument);
  EXPECT_THROW(Tree(Paths{{0}, {0}}), InvalidArgument);
  EXPECT_THROW(Tree(Paths{{-1}}), InvalidArgument);
  EXPECT_THROW(Tree::chain(0), InvalidArgument);
  EXPECT_THROW(Tree::stock("no_such_tree"), InvalidArgument);
  Paths wide;
  for (int rank = 0; rank < Tree::kMaxNodes; ++rank) wide.push_back({rank});
  EXPECT_THROW(Tree{wide}, InvalidArgument);
}

}  // namespace
}  // namespace medusa
