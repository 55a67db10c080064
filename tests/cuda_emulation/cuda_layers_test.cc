#include <cmath>

#include "device_case.h"

namespace medusa {
namespace {

double inverse_rms(const Matrix& x, int64_t row, int64_t first, int64_t count, double eps) {
  double sum = 0;
  for (int64_t i = 0; i < count; ++i) sum += x.at(row, first + i) * x.at(row, first + i);
  return 1 / std::sqrt(sum / static_cast<double>(count) + eps);
}

struct RopeCase {
  int heads, kv_heads, head_dim;
  bool norm, interleaved;
};

// `rows` rows of a packed product, split and rotated on the device.
struct Rotated {
  static constexpr int kPositions = 128;

  Rotated(Backend& backend, const RopeCase& the_shape, int64_t rows)
      : shape(the_shape),
        qkv(random_matrix(DType::f32, rows, (shape.heads + 2 * shape.kv_heads) * shape.head_dim,
                          5)),
        norms(random_matrix(DType::f32, 2, shape.head_dim, 6)),
        cos(DType::f32, kPositions, shape.head_dim / 2),
        sin(DType::f32, kPositions, shape.head_dim / 2) {
    const Matrix angles = random_matrix(DType::f32, kPositions, shape.head_dim / 2, 7);
    for (int64_t p = 0; p < kPositions; ++p) {
      for (int64_t i = 0; i < shape.head_dim / 2; ++i) {
        cos.set(p, i, static_cast<float>(std::cos(angles.at(p, i))));
        sin.set(p, i, static_cast<float>(std::sin(angles.at(p, i))));
      }
    }
    std::vector<int32_t> positions;
    for (int64_t r = 0; r < rows; ++r) positions.push_back(position(r));
    const DType c = backend.compute_dtype();
    const int64_t kv_cols = int64_t{shape.kv_heads} * shape.head_dim;
    const Resident in(backend, qkv), weights(backend, norms), cosines(backend, cos),
        sines(backend, sin);
    const Resident q_out(backend, Matrix(DType::f32, rows, shape.heads * shape.head_dim));
    const Resident keys_out(backend, Matrix(c, rows, kv_cols)),
        values_out(backend, Matrix(c, rows, kv_cols));
    const QkvSplit split{.q = q_out,
                         .keys = keys_out,
                         .values = values_out,
                         .q_norm = shape.norm ? weights.floats() : nullptr,
                         .k_norm = shape.norm ? weights.floats() + shape.head_dim : nullptr,
                         .norm_eps = 1e-6f,
                         .num_heads = shape.heads,
                         .num_kv_heads = shape.kv_heads,
                         .head_dim = shape.head_dim};
    ops::rope(backend, split, in.view().slice(0, rows), positions,
              {cosines.floats(), sines.floats(), shape.interleaved});
    q = std::make_unique<Matrix>(q_out.fetch());
    keys = std::make_unique<Matrix>(keys_out.fetch());
    values = std::make_unique<Matrix>(values_out.fetch());
  }

  static int32_t position(int64_t row) { return static_cast<int32_t>(row * 37 % kPositions); }
  double normed(int64_t row, int64_t head, int norm, int64_t i) const {
    const double x = qkv.at(row, head * shape.head_dim + i);
    if (!shape.norm) return x;
    return x * norms.at(norm, i) *
           inverse_rms(qkv, row, head * shape.head_dim, shape.head_dim, 1e-6);
  }
  // Element i of a head after norm (0: q, 1: k) and rotation.
  double expected(int64_t row, int64_t head, int norm, int64_t i) const {
    const int64_t half = shape.head_dim / 2;
    const int64_t angle = shape.interleaved ? i / 2 : i % half;
    const bool second = shape.interleaved ? i % 2 == 1 : i >= half;
    const double a = normed(row, head, norm, shape.interleaved ? 2 * angle : angle);
    const double b = normed(row, head, norm, shape.interleaved ? 2 * angle + 1 : angle + half);
    const double c = cos.at(position(row), angle), s = sin.at(position(row), angle);
    return second ? b * c + a * s : a * c - b * s;
  }

  RopeCase shape;
  Matrix qkv, norms, cos, sin;
  std::unique_ptr<Matrix> q, keys, values;
};

class CudaLayersTest : public DeviceTest {
 protected:
  double tolerance(double value) const {
    return 3e-6 * (1 + std::abs(value)) + GetParam().rounding() * std::abs(value);
  }
  void expect_rotated(const RopeCase& shape, int64_t rows) const {
    const Rotated run(*backend, shape, rows);
    const int64_t d = shape.head_dim;
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = 0; c < shape.heads * d; ++c) {
        const double expected = run.expected(r, c / d, 0, c % d);
        ASSERT_NEAR(run.q->at(r, c), expected, 1e-5 * (1 + std::abs(expected)));
      }
      for (int64_t c = 0; c < shape.kv_heads * d; ++c) {
        const double key = run.expected(r, shape.heads + c / d, 1, c % d);
        const double value = run.qkv.at(r, (shape.heads + shape.kv_heads) * d + c);
        ASSERT_NEAR(run.keys->at(r, c), key, 1e-5 * (1 + std::abs(key)) + tolerance(key));
        ASSERT_NEAR(run.values->at(r, c), value, tolerance(value));
      }
    }
  }
};
MEDUSA_FOR_EVERY_DEVICE_CASE(CudaLayersTest);

TEST_P(CudaLayersTest, rms_norm_scales_rows_alone_and_among_others) {
  for (const int64_t cols : {16, 48, 576, 4096}) {
    for (const int64_t rows : {1, 3, 64, 200}) {
      const Matrix x = random_matrix(DType::f32, rows, cols, 1, 3.0f);
      const Matrix weight = random_matrix(DType::f32, 1, cols, 2);
      const Resident in(*backend, x), scale(*backend, weight);
      const Resident out(*backend, Matrix(dtype(), rows, cols));
      const Resident alone(*backend, Matrix(dtype(), 1, cols));
      const std::span<const float> w(scale.floats(), static_cast<size_t>(cols));
      ops::rms_norm(*backend, out, in, w, 1e-5f);
      ops::rms_norm(*backend, alone, in.view().slice(rows - 1, 1), w, 1e-5f);
      const Matrix found = out.fetch();
      EXPECT_TRUE(alone.fetch().same_row(0, found, rows - 1));
      for (int64_t r = 0; r < rows; r += 23) {
        const double inverse = inverse_rms(x, r, 0, cols, 1e-5);
        for (int64_t c = 0; c < cols; ++c) {
          const double expected = x.at(r, c) * inverse * weight.at(0, c);
          ASSERT_NEAR(found.at(r, c), expected, tolerance(expected));
        }
      }
    }
  }
}

TEST_P(CudaLayersTest, rope_splits_norms_and_rotates) {
  for (const RopeCase shape : {RopeCase{3, 1, 64, false, false}, RopeCase{4, 2, 80, true, false},
                               RopeCase{2, 2, 16, false, true}, RopeCase{4, 1, 256, true, true}}) {
    expect_rotated(shape, 5);
  }
}

TEST_P(CudaLayersTest, rope_rotates_every_shape) {
  for (const int head_dim : {64, 80, 128, 256}) {
    for (const int group : {1, 3, 4, 8}) {
      expect_rotated({group, 1, head_dim, group == 3, head_dim == 80}, 1);
    }
  }
}

TEST_P(CudaLayersTest, rope_rotates_many_rows) {
  for (const int64_t rows : {64, 200}) expect_rotated({2, 1, 16, true, false}, rows);
}

TEST_P(CudaLayersTest, rope_row_is_the_same_alone_and_among_others) {
  for (const RopeCase& shape :
       {RopeCase{8, 2, 128, true, false}, RopeCase{3, 1, 80, false, true}}) {
    const Rotated alone(*backend, shape, 1);
    for (const int64_t rows : {2, 7, 64}) {
      const Rotated many(*backend, shape, rows);
      EXPECT_TRUE(alone.q->same_row(0, *many.q, 0) && alone.keys->same_row(0, *many.keys, 0) &&
                  alone.values->same_row(0, *many.values, 0));
    }
  }
}

// Row numbers below `end`, the last one first, on the device as well.
struct Numbers {
  Numbers(Backend& backend, int64_t count, int64_t end)
      : memory(backend.allocate(static_cast<size_t>(count) * sizeof(int32_t))) {
    for (int64_t i = 0; i < count; ++i)
      host.push_back(static_cast<int32_t>((end - 1 + i * 7) % end));
    device = {memory.data(), DType::i32, 1, count};
    backend.upload(device, host.data());
  }
  std::vector<int32_t> host;
  Buffer memory;
  Tensor device;
};

TEST_P(CudaLayersTest, embeds_rows_and_appends_them) {
  for (const auto& [rows, width] : {std::pair{1, 32}, {3, 96}, {64, 32}, {200, 96}}) {
    const Matrix table = random_matrix(dtype(), 45, width, 8),
                 x = random_matrix(dtype(), rows, 64, 9);
    const HostTensor host = host_tensor(table);
    const Weight packed = backend->prepare_weight({.parts = {&host}, .name = "table"});
    const Numbers ids(*backend, rows, 45);
    const Resident out(*backend, Matrix(DType::f32, rows, width)), in(*backend, x),
        both(*backend, Matrix(dtype(), rows, 64 + width));
    ops::embed(*backend, out, packed, ids.host);
    ops::append_embedding(*backend, both, in, packed, ids.device);
    const Matrix embedded = out.fetch(), appended = both.fetch();
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = 0; c < width; ++c) {
        const double expected = table.at(ids.host[static_cast<size_t>(r)], c);
        ASSERT_EQ(embedded.at(r, c), expected);
        ASSERT_EQ(appended.at(r, 64 + c), expected);
      }
      for (int64_t c = 0; c < 64; ++c) ASSERT_EQ(appended.at(r, c), x.at(r, c));
    }
  }
}

TEST_P(CudaLayersTest, gather_rows_copies) {
  for (const auto& [rows, cols] : {std::pair{1, 1}, {3, 33}, {64, 64}, {200, 7}}) {
    const Matrix x = random_matrix(dtype(), 9, cols, 8);
    const Resident in(*backend, x), out(*backend, Matrix(dtype(), rows, cols));
    const Numbers picks(*backend, rows, 9);
    ops::gather_rows(*backend, out, in, picks.device);
    const Matrix found = out.fetch();
    for (int64_t r = 0; r < rows; ++r) {
      EXPECT_TRUE(found.same_row(r, x, picks.host[static_cast<size_t>(r)])) << r;
    }
  }
}

}  // namespace
}  // namespace medusa
