#include "backbone_case.h"

namespace medusa {
namespace {

class CudaTrainAttentionTest : public BackboneDeviceTest {};
MEDUSA_FOR_EVERY_TRAIN_CASE(CudaTrainAttentionTest);

struct AttentionCase {
  std::vector<int32_t> starts;
  int heads, kv_heads, head_dim, window;
};

/// Inputs of one attention, and on a back end what becomes of them.
struct Inputs {
  explicit Inputs(const AttentionCase& c)
      : rows(c.starts.back()),
        q(random_matrix(DType::f32, rows, c.heads * c.head_dim, 1)),
        k(random_matrix(DType::f32, rows, c.kv_heads * c.head_dim, 2)),
        v(random_matrix(DType::f32, rows, c.kv_heads * c.head_dim, 3)),
        dout(random_matrix(DType::f32, rows, c.heads * c.head_dim, 4)) {}
  int64_t rows;
  Matrix q, k, v, dout;
};

struct Results {
  Matrix out, dq, dk, dv;
};

AttentionShape shape_of(const AttentionCase& c) {
  return {c.heads, c.kv_heads, c.head_dim, c.window, 0.25f};
}

std::vector<int32_t> positions(const std::vector<int32_t>& starts) {
  std::vector<int32_t> out;
  for (size_t i = 0; i + 1 < starts.size(); ++i) {
    for (int32_t p = 0; p < starts[i + 1] - starts[i]; ++p) out.push_back(p);
  }
  return out;
}

// Of rows first .. first + count - 1, which are whole documents.
Results attend(BackboneTrainBackend& backend, const AttentionCase& c, const Inputs& in,
               int64_t first, int64_t count) {
  const auto some = [&](const Matrix& x) {
    Matrix part(DType::f32, count, x.view().cols);
    for (int64_t r = 0; r < count; ++r) part.copy_row(r, x, first + r);
    return part;
  };
  const int64_t q_cols = in.q.view().cols, kv_cols = in.k.view().cols;
  const Placed q(backend, some(in.q)), k(backend, some(in.k)), v(backend, some(in.v)),
      dout(backend, some(in.dout)), out(backend, Matrix(backend.compute_dtype(), count, q_cols)),
      dq(backend, Matrix(DType::f32, count, q_cols)),
      dk(backend, Matrix(DType::f32, count, kv_cols)),
      dv(backend, Matrix(DType::f32, count, kv_cols));
  std::vector<int32_t> starts;
  for (const int32_t start : c.starts) {
    if (start >= first && start <= first + count) {
      starts.push_back(start - static_cast<int32_t>(first));
    }
  }
  const std::vector<int32_t> at = positions(starts);
  backend.attention(out, q, k, v, {starts, at}, shape_of(c));
  backend.attention_backward(dq, dk, dv, dout, q, k, v, {starts, at}, shape_of(c));
  return {out.fetch(), dq.fetch(), dk.fetch(), dv.fetch()};
}

TEST_P(CudaTrainAttentionTest, is_that_of_the_cpu_and_so_are_its_gradients) {
  const std::vector<AttentionCase> cases = {{{0, 33, 34, 136, 160}, 4, 2, 32, 0},
                                            {{0, 33, 34, 136, 160}, 2, 1, 48, 0},
                                            {{0, 64, 160}, 2, 2, 64, 9},
                                            {{0, 96}, 2, 1, 80, 0},
                                            {{0, 1, 224}, 2, 1, 16, 70}};
  for (const AttentionCase& c : cases) {
    const Inputs in(c);
    const Results found = attend(*backend, c, in, 0, in.rows);
    const Results expected = attend(*cpu, c, in, 0, in.rows);
    const double most = 2 * bound();
    EXPECT_LT(distance(found.out, expected.out), most) << c.head_dim;
    EXPECT_LT(distance(found.dq, expected.dq), most) << c.head_dim;
    EXPECT_LT(distance(found.dk, expected.dk), most) << c.head_dim;
    EXPECT_LT(distance(found.dv, expected.dv), most) << c.head_dim;
  }
}

TEST_P(CudaTrainAttentionTest, bits_do_not_depend_on_other_documents) {
  const AttentionCase c{{0, 33, 34, 136, 160}, 2, 1, 32, 0};
  const Inputs in(c);
  const Results all = attend(*backend, c, in, 0, 160), own = attend(*backend, c, in, 34, 102);
  for (int64_t r = 0; r < 102; ++r) {
    EXPECT_TRUE(own.out.same_row(r, all.out, 34 + r) && own.dq.same_row(r, all.dq, 34 + r));
    EXPECT_TRUE(own.dk.same_row(r, all.dk, 34 + r) && own.dv.same_row(r, all.dv, 34 + r));
  }
}

}  // namespace
}  // namespace medusa
