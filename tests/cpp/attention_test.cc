#include "attention_case.h"

namespace medusa {
namespace {

using attention::chain;
using attention::Pass;
using attention::Sequence;
using attention::Shape;
using attention::tree;

struct CacheCase : KernelCase {
  DType cache;
};

std::vector<CacheCase> all_cache_cases() {
  std::vector<CacheCase> cases;
  for (const KernelCase& c : all_kernel_cases()) {
    cases.push_back({c, c.dtype()});
    if (c.dtype() == DType::bf16) cases.push_back({c, DType::i8});
  }
  return cases;
}

class AttentionTest : public testing::TestWithParam<CacheCase> {
 protected:
  static Pass pass(int threads, const Shape& shape, std::vector<Sequence> sequences) {
    return Pass(GetParam().backend(threads), GetParam().cache, shape, std::move(sequences));
  }
};

INSTANTIATE_TEST_SUITE_P(every_isa, AttentionTest, testing::ValuesIn(all_cache_cases()),
                         [](const auto& c) {
                           return std::string(c.param.kernels->name) + "_" +
                                  std::string(name(c.param.cache));
                         });

void expect_close(const CacheCase& c, const Shape& shape, const std::vector<Sequence>& sequences) {
  const Pass run(c.backend(2), c.cache, shape, sequences);
  // One rounding of the result; queries and weights may be rounded too, where bf16 is multiplied.
  EXPECT_LT(attention::worst_error(run, shape, sequences), 1e-5 + 2 * c.rounding())
      << shape.heads << "/" << shape.kv_heads << " heads of " << shape.head_dim << ", window "
      << shape.window;
  EXPECT_TRUE(run.out().guards_intact());
}

TEST_P(AttentionTest, equals_the_definition) {
  for (const Shape shape : {Shape{3, 1, 64, 0}, Shape{4, 4, 16, 0}, Shape{8, 2, 80, 0},
                            Shape{8, 1, 128, 0}, Shape{3, 1, 64, 40}, Shape{2, 2, 32, 100}}) {
    expect_close(GetParam(), shape, {{0, chain(1), 1}, {63, tree(20, 1), 2}, {64, chain(3), 3}});
    expect_close(GetParam(), shape, {{130, tree(70, 2), 4}, {0, chain(70), 5}, {65, chain(1), 6}});
  }
}

TEST_P(AttentionTest, reads_long_contexts) {
  expect_close(GetParam(), {3, 1, 64, 0}, {{700, tree(9, 3), 7}, {511, chain(5), 8}});
  expect_close(GetParam(), {3, 1, 64, 256}, {{700, tree(9, 3), 7}, {0, chain(400), 8}});
}

// A row's history in other clothes: cached or fresh, alone or among others, any threads.
TEST_P(AttentionTest, row_depends_on_its_own_history_only) {
  for (const Shape shape : {Shape{3, 1, 64, 0}, Shape{4, 2, 80, 50}}) {
    const uint32_t seed = 20;
    const Pass cached = pass(1, shape, {{150, chain(1), seed}});
    for (int committed : {0, 1, 63, 64, 100, 128, 149}) {
      for (int threads : {1, 2, 3}) {
        const Pass run = pass(threads, shape,
                              {{77, tree(30, 4), 90}, {committed, chain(151 - committed), seed}});
        const int last = run.first_row(1) + 150 - committed;
        EXPECT_TRUE(cached.out().same_row(0, run.out(), last)) << committed << ", " << threads;
      }
    }
  }
}

TEST_P(AttentionTest, tree_row_equals_its_path_as_a_chain) {
  const Shape shape{6, 2, 64, 0};
  for (int committed : {0, 61, 64, 200}) {
    // Nodes 0-2-4-5 are a path; 1, 3 and 6 are others.
    const std::vector<int> parents = {-1, 0, 0, 1, 2, 4, 3};
    const Pass bushy = pass(2, shape, {{committed, parents, 30}, {10, chain(2), 31}});
    // The same rows as a tree without the others: histories are drawn row by row, so the path's
    // rows are compared through a tree that keeps the numbering but grows nothing else.
    std::vector<int> alone = {-1, -1, 0, -1, 2, 4, -1};
    const Pass path = pass(1, shape, {{committed, alone, 30}});
    for (int row : {0, 2, 4, 5}) EXPECT_TRUE(bushy.out().same_row(row, path.out(), row)) << row;
  }
}

// What a row does not see may be no number.
TEST_P(AttentionTest, ignores_rows_that_are_not_on_the_path) {
  const Shape shape{6, 2, 64, 0};
  const std::vector<int> parents = {-1, 0, 0, 1, 2, 4, 3};
  const Pass clean = pass(1, shape, {{61, parents, 30}});
  const Pass poisoned = pass(2, shape, {{61, parents, 30, 1}});
  for (int row : {0, 2, 4, 5}) EXPECT_TRUE(clean.out().same_row(row, poisoned.out(), row)) << row;
  const Pass chained = pass(1, shape, {{61, chain(7), 30}});
  const Pass later = pass(2, shape, {{61, chain(7), 30, 6}});
  for (int row = 0; row < 6; ++row) {
    EXPECT_TRUE(chained.out().same_row(row, later.out(), row)) << row;
  }
}

}  // namespace
}  // namespace medusa
