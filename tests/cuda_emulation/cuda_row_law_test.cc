// The bits of a row are its own, for the verbs whose other tests do not say so: one row against the
// same row among 1 to 199 others that hold something else.
#include "device_case.h"
#include "linear_case.h"

namespace medusa {
namespace {

class CudaRowLawTest : public DeviceTest {};
MEDUSA_FOR_EVERY_DEVICE_CASE(CudaRowLawTest);

constexpr int64_t kCompanies[] = {2, 5, 9, 64, 200};

// `row` as the last of `rows` rows.
Matrix with_company(const Matrix& row, int64_t rows, uint32_t seed) {
  Matrix all = random_matrix(row.view().dtype, rows, row.view().cols, seed);
  all.copy_row(rows - 1, row, 0);
  return all;
}

std::vector<int32_t> ids_ending_in(int32_t last, int64_t count) {
  std::vector<int32_t> ids;
  for (int64_t i = 0; i + 1 < count; ++i) ids.push_back(static_cast<int32_t>(i * 7 % 45));
  ids.push_back(last);
  return ids;
}

TEST_P(CudaRowLawTest, of_every_epilogue) {
  const int64_t k = 1088, half = 96;
  const Matrix gate = random_matrix(dtype(), half, k, 1, 0.1f);
  const Matrix up = random_matrix(dtype(), half, k, 2, 0.1f);
  const HostTensor g = host_tensor(gate), u = host_tensor(up);
  const Weight both =
      backend->prepare_weight({.parts = {&g, &u}, .pack = Pack::interleave, .name = "gate_up"});
  const Layer layer(*backend, half, k, 3);
  const auto run = [&](Epilogue epilogue, const Matrix& x, const Matrix& before) {
    const Resident in(*backend, x), out(*backend, before);
    ops::linear(*backend, out, in, epilogue == Epilogue::silu_mul ? both : layer.packed, epilogue);
    return out.fetch();
  };
  for (const Epilogue epilogue :
       {Epilogue::store, Epilogue::add, Epilogue::silu_mul, Epilogue::residual_silu}) {
    const bool wide = epilogue == Epilogue::store || epilogue == Epilogue::add;
    const Matrix x = random_matrix(dtype(), 1, k, 4);
    const Matrix before = random_matrix(wide ? DType::f32 : dtype(), 1, half, 5);
    const Matrix alone = run(epilogue, x, before);
    for (const int64_t rows : kCompanies) {
      const Matrix many = run(epilogue, with_company(x, rows, 6), with_company(before, rows, 7));
      EXPECT_TRUE(alone.same_row(0, many, rows - 1)) << rows;
    }
  }
}

TEST_P(CudaRowLawTest, of_embeddings) {
  const Matrix table = random_matrix(dtype(), 45, 96, 8), x = random_matrix(dtype(), 1, 64, 9);
  const HostTensor host = host_tensor(table);
  const Weight packed = backend->prepare_weight({.parts = {&host}, .name = "table"});
  const auto run = [&](int64_t rows) {
    const std::vector<int32_t> ids = ids_ending_in(44, rows);
    const Resident out(*backend, Matrix(DType::f32, rows, 96)),
        in(*backend, with_company(x, rows, 10)), both(*backend, Matrix(dtype(), rows, 64 + 96));
    Matrix row(DType::i32, 1, rows);
    std::copy(ids.begin(), ids.end(), row.view().row<int32_t>(0));
    ops::embed(*backend, out, packed, ids);
    ops::append_embedding(*backend, both, in, packed, Resident(*backend, row));
    return std::pair(out.fetch(), both.fetch());
  };
  const auto alone = run(1);
  for (const int64_t rows : kCompanies) {
    const auto many = run(rows);
    EXPECT_TRUE(alone.first.same_row(0, many.first, rows - 1)) << rows;
    EXPECT_TRUE(alone.second.same_row(0, many.second, rows - 1)) << rows;
  }
}

TEST_P(CudaRowLawTest, of_the_best) {
  const Layer layer(*backend, 300, 1088, 3);
  const Matrix x = random_matrix(dtype(), 1, 1088, 11);
  const auto run = [&](int64_t rows) {
    const Resident in(*backend, with_company(x, rows, 12)),
        values(*backend, Matrix(DType::f32, rows, 10)), ids(*backend, Matrix(DType::i32, rows, 10));
    ops::linear_top_k(*backend, values, ids, in, {&layer.packed, 1});
    return std::pair(values.fetch(), ids.fetch());
  };
  const auto alone = run(1);
  for (const int64_t rows : {2, 9, 64}) {
    const auto many = run(rows);
    EXPECT_TRUE(alone.first.same_row(0, many.first, rows - 1)) << rows;
    EXPECT_TRUE(alone.second.same_row(0, many.second, rows - 1)) << rows;
  }
}

TEST_P(CudaRowLawTest, of_posteriors) {
  const Matrix logits = random_matrix(DType::f32, 1, 1500, 13);
  const std::vector<int32_t> tokens = {0, 6, 1499};
  const auto run = [&](int64_t count) {
    const Resident in(*backend, with_company(logits, count, 14));
    std::vector<float> found(static_cast<size_t>(count) * 3), entropies(static_cast<size_t>(count));
    std::vector<PosteriorRow> rows;
    for (int64_t r = 0; r < count; ++r) {
      const auto at = static_cast<size_t>(r);
      rows.push_back({.draw = {.row = r, .temperature = 0.8f},
                      .tokens = tokens,
                      .log_probs = std::span(found).subspan(at * 3, 3),
                      .entropy = &entropies[at]});
    }
    ops::posterior(*backend, in, rows);
    std::vector<float> last(found.end() - 3, found.end());
    last.push_back(entropies.back());
    return last;
  };
  const auto alone = run(1);
  for (const int64_t rows : {2, 9, 64}) EXPECT_EQ(run(rows), alone) << rows;
}

// What a row leaves in the cache, and that nothing else of its page changes.
TEST_P(CudaRowLawTest, of_commits) {
  const int64_t width = 2 * 80;
  const Matrix key = random_matrix(dtype(), 1, width, 15),
               value = random_matrix(dtype(), 1, width, 16);
  const auto run = [&](int64_t rows) {
    KvLayout cache{nullptr, nullptr, dtype(), 1, 4, 2, 80};
    const auto side = static_cast<int64_t>(cache.bytes_per_side() / block_bytes(dtype())) / 80;
    const Resident keys(*backend, Matrix(dtype(), side, 80)),
        values(*backend, Matrix(dtype(), side, 80));
    cache.keys = keys.view().data;
    cache.values = values.view().data;
    const Resident fresh_keys(*backend, with_company(key, rows, 17)),
        fresh_values(*backend, with_company(value, rows, 18));
    std::vector<CommitRow> targets;
    for (int32_t r = 0; r + 1 < rows; ++r) targets.push_back({r, 3 - r / 64, r});
    targets.push_back({static_cast<int32_t>(rows) - 1, 0, 63});
    ops::commit(*backend, cache, fresh_keys, fresh_values, targets);
    return std::pair(keys.fetch(), values.fetch());
  };
  const auto alone = run(1);
  const int64_t page_rows = 2 * 64;  // of page 0: [kv head][position]
  for (const int64_t rows : {2, 9, 64, 150}) {
    const auto many = run(rows);
    for (int64_t r = 0; r < page_rows; ++r) {
      ASSERT_TRUE(alone.first.same_row(r, many.first, r)) << rows << ", " << r;
      ASSERT_TRUE(alone.second.same_row(r, many.second, r)) << rows << ", " << r;
    }
  }
  for (int64_t c = 0; c < 80; ++c) {
    EXPECT_EQ(alone.first.at(63, c), key.at(0, c));
    EXPECT_EQ(alone.first.at(64 + 63, c), key.at(0, 80 + c));
    EXPECT_EQ(alone.second.at(64 + 63, c), value.at(0, 80 + c));
  }
}

// Of two layers, the kept rows alone, on either side of a page's border.
TEST_P(CudaRowLawTest, of_commits_of_what_was_kept) {
  KvLayout cache{nullptr, nullptr, dtype(), 2, 3, 1, 64};
  const auto side = static_cast<int64_t>(cache.bytes_per_side() / block_bytes(dtype())) / 64;
  const Resident keys(*backend, Matrix(dtype(), side, 64)),
      values(*backend, Matrix(dtype(), side, 64));
  cache.keys = keys.view().data;
  cache.values = values.view().data;
  const Matrix fresh = random_matrix(dtype(), 2 * 5, 64, 19),
               other = random_matrix(dtype(), 2 * 5, 64, 20);
  Matrix kept(DType::i32, 1, 5);
  for (const int row : {0, 2, 3}) kept.view().row<int32_t>(0)[row] = 1;
  const std::vector<CommitRow> targets = {
      {0, 2, 63}, {1, 0, 64}, {2, 0, 64}, {3, 0, 65}, {4, 1, 66}};
  ops::commit(*backend, cache, Resident(*backend, fresh), Resident(*backend, other), targets,
              Resident(*backend, kept));
  const Matrix k = keys.fetch(), v = values.fetch();
  Matrix expected_k(dtype(), side, 64), expected_v(dtype(), side, 64);
  for (int64_t layer = 0; layer < 2; ++layer) {
    for (const CommitRow& to : targets) {
      if (kept.view().row<int32_t>(0)[to.row] == 0) continue;
      const int64_t at = (layer * 3 + to.page) * 64 + to.position % 64;
      expected_k.copy_row(at, fresh, layer * 5 + to.row);
      expected_v.copy_row(at, other, layer * 5 + to.row);
    }
  }
  EXPECT_TRUE(k.same(expected_k) && v.same(expected_v));
}

}  // namespace
}  // namespace medusa
