#include <gtest/gtest.h>

#include "verb_case.h"

namespace medusa {
namespace {

class WeightGradientsTest : public VerbTest {};
INSTANTIATE_TEST_SUITE_P(every_isa, WeightGradientsTest, testing::ValuesIn(all_verb_cases()),
                         verb_case_name);

constexpr int64_t kRows = 300, kCols = 96;  // more than one task of either

TEST_P(WeightGradientsTest, of_an_embedding_whose_rows_come_more_than_once) {
  const Matrix dx = wide(kRows, kCols, 1), table = wide(7, kCols, 2), before = wide(7, kCols, 2);
  std::vector<int32_t> ids;
  for (int32_t r = 0; r < kRows; ++r) ids.push_back(r * r % 7 == 1 ? 6 : r % 5);  // 5: never
  backend->embed_backward(table, dx, 0, ids);
  EXPECT_LT(error(table,
                  [&](int64_t id, int64_t c) {
                    double sum = before.at(id, c);
                    for (int64_t r = 0; r < kRows; ++r) {
                      if (ids[static_cast<size_t>(r)] == id) sum += dx.at(r, c);
                    }
                    return sum;
                  }),
            1e-6);
  EXPECT_TRUE(table.guards_intact() && table.same_row(5, before, 5));
}

TEST_P(WeightGradientsTest, of_a_norm) {
  const Matrix x = wide(kRows, kCols, 1), dy = wide(kRows, kCols, 2);
  const Matrix sums = wide(1, kCols, 3), before = wide(1, kCols, 3);
  backend->rms_norm_weight(sums.view().row<float>(0), dy, x, 1e-3f);
  const auto inverse = [&](int64_t r) {
    double squares = 0;
    for (int64_t c = 0; c < kCols; ++c) squares += x.at(r, c) * x.at(r, c);
    return 1 / std::sqrt(squares / kCols + 1e-3);
  };
  EXPECT_LT(error(sums,
                  [&](int64_t, int64_t c) {
                    double sum = before.at(0, c);
                    for (int64_t r = 0; r < kRows; ++r)
                      sum += dy.at(r, c) * x.at(r, c) * inverse(r);
                    return sum;
                  }),
            2e-6);
  EXPECT_TRUE(sums.guards_intact());
}

TEST_P(WeightGradientsTest, of_a_bias) {
  const Matrix dy = random(kRows, kCols, 1), sums = wide(1, kCols, 2), before = wide(1, kCols, 2);
  backend->column_sums(sums.view().row<float>(0), dy);
  EXPECT_LT(error(sums,
                  [&](int64_t, int64_t c) {
                    double sum = before.at(0, c);
                    for (int64_t r = 0; r < kRows; ++r) sum += dy.at(r, c);
                    return sum;
                  }),
            1e-6);
  EXPECT_TRUE(sums.guards_intact());
}

TEST_P(WeightGradientsTest, do_not_depend_on_threads) {
  const Matrix x = wide(kRows, kCols, 1), dy = wide(kRows, kCols, 2);
  const Matrix narrow = random(kRows, kCols, 3), sums(DType::f32, 9, kCols);
  std::vector<int32_t> ids(kRows);
  for (int32_t r = 0; r < kRows; ++r) ids[static_cast<size_t>(r)] = r % 3;
  for (const int64_t threads : {0, 1, 2}) {
    const auto some = GetParam().backend(static_cast<int>(threads) + 1);
    const Tensor out = sums.view().slice(3 * threads, 3);
    some->embed_backward(out.slice(0, 1), x, 0, ids);
    some->rms_norm_weight(out.row<float>(1), dy, x, 1e-5f);
    some->column_sums(out.row<float>(2), narrow);
  }
  for (int64_t r = 3; r < 9; ++r) EXPECT_TRUE(sums.same_row(r, sums, r % 3));
}

}  // namespace
}  // namespace medusa
