#include "attention_case.h"
#include "device_case.h"

namespace medusa {
namespace {

using attention::chain;
using attention::Pass;
using attention::Sequence;
using attention::Shape;
using attention::tree;

class CudaAttentionTest : public DeviceTest {
 protected:
  void expect_close(const Shape& shape, const std::vector<Sequence>& sequences) {
    const Pass run(backend, shape, sequences);
    // The result, weights and queries are rounded; scores grow with head_dim.
    const double roundings = shape.head_dim > 128 ? 3 : 2;
    EXPECT_LT(attention::worst_error(run, shape, sequences),
              1e-5 + roundings * GetParam().rounding())
        << shape.heads << "/" << shape.kv_heads << " heads of " << shape.head_dim << ", window "
        << shape.window;
  }
};
MEDUSA_FOR_EVERY_DEVICE_CASE(CudaAttentionTest);

TEST_P(CudaAttentionTest, equals_the_definition) {
  for (const Shape shape : {Shape{3, 1, 64, 0}, Shape{2, 2, 16, 0}, Shape{4, 1, 80, 0},
                            Shape{8, 1, 128, 0}, Shape{3, 1, 64, 40}, Shape{2, 2, 32, 100}}) {
    expect_close(shape, {{0, chain(1), 1}, {63, tree(20, 1), 2}, {64, chain(3), 3}});
  }
  expect_close({4, 1, 64, 0}, {{130, tree(64, 2), 4}, {0, chain(70), 5}, {65, chain(1), 6}});
  expect_close({2, 2, 256, 0}, {{65, tree(5, 2), 4}, {3, chain(2), 5}});
}

// More than one split of 512 positions.
TEST_P(CudaAttentionTest, reads_long_contexts) {
  expect_close({3, 1, 64, 0}, {{700, tree(9, 3), 7}, {511, chain(5), 8}});
  expect_close({4, 1, 64, 256}, {{700, tree(9, 3), 7}});
  expect_close({1, 1, 256, 0}, {{520, tree(4, 3), 7}});
}

TEST_P(CudaAttentionTest, reads_three_thousand_positions) {
  expect_close({2, 1, 64, 0}, {{3000, tree(3, 3), 7}, {1030, chain(1), 8}});
  expect_close({1, 1, 128, 0}, {{2999, chain(2), 9}});
  expect_close({8, 1, 80, 0}, {{3000, chain(1), 10}});
  expect_close({3, 1, 256, 0}, {{2500, chain(1), 11}});
}

// Every width and every number of heads that share a key/value head, around the borders of pages.
TEST_P(CudaAttentionTest, equals_the_definition_for_every_shape) {
  for (const int head_dim : {64, 80, 128, 256}) {
    for (const int group : {1, 3, 4, 8}) {
      expect_close({group, 1, head_dim, 0},
                   {{63, chain(2), 1}, {64, tree(7, 1), 2}, {65, chain(1), 3}, {0, tree(3, 2), 4}});
    }
  }
}

TEST_P(CudaAttentionTest, equals_the_definition_for_200_rows) {
  expect_close({3, 1, 64, 0}, {{127, chain(200), 8}});
  expect_close({4, 2, 128, 0}, {{128, tree(64, 4), 9}, {129, tree(64, 5), 10}, {0, chain(72), 11}});
}

TEST_P(CudaAttentionTest, equals_the_definition_for_contexts_to_3000) {
  for (const int context : {0, 1, 2, 191, 192, 193, 511, 512, 513, 1023, 1024, 1025, 2047}) {
    expect_close({2, 1, 64, 0}, {{context, chain(1), 12}, {context, tree(4, 6), 13}});
  }
}

// A row's history in other clothes: cached or fresh, alone or among others.
TEST_P(CudaAttentionTest, row_depends_on_its_own_history_only) {
  for (const Shape shape : {Shape{3, 1, 64, 0}, Shape{2, 1, 80, 50}}) {
    const uint32_t seed = 20;
    const Pass cached(backend, shape, {{150, chain(1), seed}});
    for (const int committed : {0, 1, 64, 100, 149}) {
      const Pass run(backend, shape,
                     {{77, tree(30, 4), 90}, {committed, chain(151 - committed), seed}});
      EXPECT_TRUE(cached.out().same_row(0, run.out(), run.first_row(1) + 150 - committed))
          << committed;
    }
  }
}

// A row alone, and as the root of 64 others beside a third sequence: every width and group.
TEST_P(CudaAttentionTest, row_is_the_same_alone_and_among_64_for_every_shape) {
  for (const int head_dim : {64, 80, 128, 256}) {
    for (const int group : {1, 3, 4, 8}) {
      const Shape shape{group, 1, head_dim, 0};
      const Pass alone(backend, shape, {{65, chain(1), 60}});
      const Pass many(backend, shape, {{3, chain(2), 61}, {65, tree(64, 9), 60}});
      EXPECT_TRUE(alone.out().same_row(0, many.out(), many.first_row(1)))
          << group << " heads of " << head_dim;
    }
  }
}

// Across a border of splits: 511, 512 and 513 are the first row's position.
TEST_P(CudaAttentionTest, row_is_the_same_cached_or_drafted_around_a_split) {
  const Shape shape{2, 1, 64, 0};
  for (const int position : {511, 512, 513}) {
    const Pass cached(backend, shape, {{position, chain(1), 40}});
    std::vector<int> parents = chain(4);
    parents.push_back(0);  // a branch, so that the batch is a tree
    const Pass drafted(backend, shape, {{position - 3, parents, 40}, {9, chain(1), 41}});
    EXPECT_TRUE(cached.out().same_row(0, drafted.out(), 3)) << position;
  }
}

TEST_P(CudaAttentionTest, nothing_of_a_branch_reaches_another) {
  const Shape shape{4, 2, 64, 0};
  const std::vector<int> parents = {-1, 0, 0, 1, 2};
  for (const int committed : {0, 63, 70}) {
    const Pass clean(backend, shape, {{committed, parents, 50}});
    const Pass poisoned(backend, shape, {{committed, parents, 50, 1}});
    for (const int row : {0, 2, 4}) EXPECT_TRUE(clean.out().same_row(row, poisoned.out(), row));
  }
}

TEST_P(CudaAttentionTest, tree_row_equals_its_path_as_a_chain) {
  const Shape shape{6, 2, 64, 0};
  for (const int committed : {0, 61, 64, 200}) {
    const std::vector<int> parents = {-1, 0, 0, 1, 2, 4, 3};  // 0-2-4-5 is a path
    const Pass bushy(backend, shape, {{committed, parents, 30}, {10, chain(2), 31}});
    const std::vector<int> alone = {-1, -1, 0, -1, 2, 4, -1};
    const Pass path(backend, shape, {{committed, alone, 30}});
    for (const int row : {0, 2, 4, 5}) {
      EXPECT_TRUE(bushy.out().same_row(row, path.out(), row)) << row;
    }
  }
}

}  // namespace
}  // namespace medusa
