#include "backbone_case.h"

namespace medusa {
namespace {

class CudaBackboneTest : public BackboneDeviceTest {};
MEDUSA_FOR_EVERY_TRAIN_CASE(CudaBackboneTest);

/// A weight in a stored format: random floats, or random blocks whose scales are about a tenth.
std::vector<uint8_t> stored_weight(DType dtype, int64_t count) {
  std::mt19937 random(7);
  std::vector<uint8_t> bytes(static_cast<size_t>(count / block_elements(dtype)) *
                             block_bytes(dtype));
  for (int64_t i = 0; block_elements(dtype) == 1 && i < count; ++i) {
    const float value = std::normal_distribution<float>()(random);
    const bf16 half = to_bf16(value);
    std::memcpy(bytes.data() + static_cast<size_t>(i) * block_bytes(dtype),
                dtype == DType::f32 ? static_cast<const void*>(&value) : &half, block_bytes(dtype));
  }
  for (size_t i = 0; block_elements(dtype) > 1 && i < bytes.size(); ++i) {
    const size_t at = i % block_bytes(dtype);
    bytes[i] = at < 4 ? (at % 2 == 0 ? 0x66 : 0x2e) : static_cast<uint8_t>(random());
  }
  return bytes;
}

TEST_P(CudaBackboneTest, products_with_a_held_weight_of_any_format) {
  constexpr int64_t kOut = 77, kPadded = 96, kIn = 256, kRows = 32;
  const Matrix x = random(kRows, kIn, 1), dy = random(kRows, kPadded, 2);
  const Placed x_in(*backend, x), dy_in(*backend, dy);
  for (const DType format : {DType::f32, DType::bf16, DType::q4_0, DType::q4_k}) {
    const std::vector<uint8_t> bytes = stored_weight(format, kOut * kIn);
    const FrozenMatrix w{bytes.data(), format, kOut, kIn};
    const FrozenMatrix held = backend->hold(w);
    const Matrix y = wide(kRows, kPadded, 3), dx = wide(kRows, kIn, 4);
    const Placed y_out(*backend, y), dx_out(*backend, dx);
    for (const bool accumulate : {false, true}) {
      backend->linear(y_out, x_in, held, accumulate);
      backend->linear_backward(dx_out, dy_in, held, accumulate);
      cpu->linear(y, x, w, accumulate);
      cpu->linear_backward(dx, dy, w, accumulate);
    }
    EXPECT_LT(distance(y_out.fetch(), y), bound()) << name(format);
    EXPECT_LT(distance(dx_out.fetch(), dx), bound()) << name(format);
  }
}

TEST_P(CudaBackboneTest, outer_products) {
  const Matrix a = random(64, 96, 1), b = random(64, 48, 2);
  const Placed a_in(*backend, a), b_in(*backend, b);
  for (const int64_t rows : {77, 96}) {
    const Matrix c = wide(rows, 48, 3);
    const Placed c_out(*backend, c);
    Panels device_panels = backend->allocate_panels(64, 48), panels = cpu->allocate_panels(64, 48);
    backend->pack(device_panels, b_in);
    cpu->pack(panels, b);
    for (const bool accumulate : {false, true}) {
      backend->outer(c_out, a_in, device_panels, accumulate);
      cpu->outer(c, a, panels, accumulate);
    }
    EXPECT_LT(distance(c_out.fetch(), c), 3e-6);
  }
}

TEST_P(CudaBackboneTest, embeds_rows) {
  const Matrix table = random(45, 64, 1), out(DType::f32, 4, 64);
  const FrozenMatrix w{table.view().data, dtype(), 45, 64};
  const Placed found(*backend, out);
  const std::vector<int32_t> ids = {44, 0, 7, 44};
  backend->embed(found, backend->hold(w), ids);
  cpu->embed(out, w, ids);
  EXPECT_TRUE(found.fetch().same(out));
}

TEST_P(CudaBackboneTest, a_norm_and_its_gradient) {
  for (const auto& [rows, cols] : {std::pair{5, 32}, {7, 96}, {3, 576}}) {
    const Matrix x = wide(rows, cols, 1), w = wide(1, cols, 2), dy = wide(rows, cols, 3);
    const Matrix y(dtype(), rows, cols), dx = wide(rows, cols, 4);
    const Placed x_in(*backend, x), w_in(*backend, w), dy_in(*backend, dy), y_out(*backend, y),
        dx_out(*backend, dx);
    backend->rms_norm(y_out, x_in, w_in.floats(), 1e-3f);
    backend->rms_norm_backward(dx_out, dy_in, x_in, w_in.floats(), 1e-3f, true);
    backend->rms_norm_backward(dy_in, dy_in, x_in, w_in.floats(), 1e-3f, false);
    const float* weight = w.view().row<float>(0);
    cpu->rms_norm(y, x, weight, 1e-3f);
    cpu->rms_norm_backward(dx, dy, x, weight, 1e-3f, true);
    cpu->rms_norm_backward(dy, dy, x, weight, 1e-3f, false);
    EXPECT_LT(distance(y_out.fetch(), y), bound());
    EXPECT_LT(distance(dx_out.fetch(), dx), 3e-6);
    EXPECT_LT(distance(dy_in.fetch(), dy), 3e-6);
  }
}

TEST_P(CudaBackboneTest, gradients_of_its_own_weights) {
  for (const auto& [rows, cols] : {std::pair{64, 32}, {75, 96}, {3, 576}}) {
    const Matrix x = wide(rows, cols, 1), dy = wide(rows, cols, 2), both = wide(rows, 2 * cols, 3);
    const Matrix narrow = random(rows, cols, 4), table = wide(7, cols, 5), norm = wide(1, cols, 6),
                 bias = wide(1, cols, 7);
    const Placed x_in(*backend, x), dy_in(*backend, dy), both_in(*backend, both),
        narrow_in(*backend, narrow), table_out(*backend, table), norm_out(*backend, norm),
        bias_out(*backend, bias);
    std::vector<int32_t> ids(static_cast<size_t>(rows));
    for (int r = 0; r < rows; ++r) ids[static_cast<size_t>(r)] = r * r % 7 == 1 ? 6 : r % 5;
    const auto run = [&](BackboneTrainBackend& on, Tensor t, float* n, float* b, Tensor wide_x,
                         Tensor wide_dy, Tensor pairs, Tensor rounded) {
      on.embed_backward(t, pairs, cols, ids);
      on.rms_norm_weight(n, wide_dy, wide_x, 1e-3f);
      on.column_sums(b, rounded);
    };
    run(*backend, table_out, norm_out.view().row<float>(0), bias_out.view().row<float>(0), x_in,
        dy_in, both_in, narrow_in);
    run(*cpu, table, norm.view().row<float>(0), bias.view().row<float>(0), x, dy, both, narrow);
    EXPECT_LT(distance(table_out.fetch(), table), 3e-6);
    EXPECT_LT(distance(norm_out.fetch(), norm), 3e-6);
    EXPECT_LT(distance(bias_out.fetch(), bias), 3e-6);
  }
}

TEST_P(CudaBackboneTest, rotation_and_back) {
  constexpr int64_t kDim = 48;
  const Matrix cos = wide(8, kDim / 2, 1), sin = wide(8, kDim / 2, 2);
  const Placed cos_in(*backend, cos), sin_in(*backend, sin);
  const std::vector<int32_t> positions = {0, 7, 2};
  for (const bool interleaved : {false, true}) {
    for (const bool inverse : {false, true}) {
      const Matrix x = wide(3, 2 * kDim, 3);
      const Placed found(*backend, x);
      backend->rotate(found, positions, {cos_in.floats(), sin_in.floats(), interleaved}, kDim,
                      inverse);
      cpu->rotate(x, positions, {cos.view().row<float>(0), sin.view().row<float>(0), interleaved},
                  kDim, inverse);
      EXPECT_LT(distance(found.fetch(), x), 1e-6);
    }
  }
}

TEST_P(CudaBackboneTest, silu_mul_and_its_gradient) {
  constexpr int64_t kRows = 11, kCols = 96;
  const Matrix g = wide(kRows, kCols, 1), u = wide(kRows, kCols, 2), dy = wide(kRows, kCols, 3);
  const Matrix y(dtype(), kRows, kCols), dg(dtype(), kRows, kCols), du(dtype(), kRows, kCols);
  const Placed g_in(*backend, g), u_in(*backend, u), dy_in(*backend, dy), y_out(*backend, y),
      dg_out(*backend, dg), du_out(*backend, du);
  backend->silu_mul(y_out, g_in, u_in);
  backend->silu_mul_backward(dg_out, du_out, dy_in, g_in, u_in);
  cpu->silu_mul(y, g, u);
  cpu->silu_mul_backward(dg, du, dy, g, u);
  EXPECT_LT(distance(y_out.fetch(), y), bound());
  EXPECT_LT(distance(dg_out.fetch(), dg), bound());
  EXPECT_LT(distance(du_out.fetch(), du), bound());
}

TEST_P(CudaBackboneTest, sums_and_scaled_rows) {
  constexpr int64_t kRows = 37, kCols = 96;
  const Matrix x = wide(kRows, kCols, 1), bias = wide(1, kCols, 2), y = wide(kRows, kCols, 3);
  const Matrix scaled(dtype(), kRows, kCols);
  const Placed x_in(*backend, x), bias_in(*backend, bias), y_out(*backend, y),
      scaled_out(*backend, scaled);
  backend->add(y_out, x_in);
  backend->add_bias(y_out, bias_in.floats());
  backend->scale(scaled_out, y_out, 0.37f);
  cpu->add(y, x);
  cpu->add_bias(y, bias.view().row<float>(0));
  cpu->scale(scaled, y, 0.37f);
  EXPECT_TRUE(y_out.fetch().same(y));
  EXPECT_TRUE(scaled_out.fetch().same(scaled));
}

TEST_P(CudaBackboneTest, rows_are_picked_and_put_back) {
  const Matrix x = random(9, 32, 1), out = random(5, 96, 2), copied = random(9, 32, 3);
  const Matrix sums = wide(9, 32, 4), some = wide(4, 32, 5);
  const std::vector<int32_t> picked = {8, 0, 8}, put = {6, 0, 8, 3};
  const Placed x_in(*backend, x), out_out(*backend, out), copied_out(*backend, copied),
      sums_out(*backend, sums), some_in(*backend, some);
  backend->gather(out_out, 32, x_in, picked);
  backend->copy(copied_out, x_in);
  cpu->gather(out, 32, x, picked);
  cpu->copy(copied, x);
  for (const bool accumulate : {false, true}) {
    backend->scatter(sums_out, some_in, put, accumulate);
    cpu->scatter(sums, some, put, accumulate);
  }
  const Matrix found = out_out.fetch();
  EXPECT_TRUE(found.same(out) && copied_out.fetch().same(copied));
  EXPECT_TRUE(sums_out.fetch().same(sums));
  for (int64_t c = 32; c < 64; ++c) EXPECT_EQ(found.at(3, c), 0);
}

TEST_P(CudaBackboneTest, dropout_draws_the_noise_of_the_cpu) {
  for (const int64_t cols : {32, 160, 576}) {
    const Matrix x = random(5, cols, 1), dx = wide(5, cols, 2), sum = wide(5, cols, 3);
    const Matrix out(dtype(), 5, cols);
    const Placed x_in(*backend, x), dx_in(*backend, dx), sum_out(*backend, sum),
        out_out(*backend, out);
    const Dropout noise{
        .probability = 0.3f, .seed = 0x123456789abcdef0, .step = 3, .site = 5, .first_row = 100};
    backend->dropout(out_out, x_in, noise);
    backend->add_dropped(sum_out, dx_in, noise);
    cpu->dropout(out, x, noise);
    cpu->add_dropped(sum, dx, noise);
    EXPECT_TRUE(out_out.fetch().same(out)) << cols;
    EXPECT_LT(distance(sum_out.fetch(), sum), 1e-6) << cols;
  }
}

TEST_P(CudaBackboneTest, divergence_and_its_gradient) {
  for (const auto& [vocab, padded] : {std::pair{75, 96}, {1024, 1024}}) {
    const Matrix student = wide(3, padded, 1, 3.0f), teacher = wide(3, padded, 2, 3.0f);
    const Matrix grad = random(3, padded, 3);
    const std::vector<float> weights = {0.5f, 0.0f, 2.0f};
    std::vector<double> found(3, -1), expected(3, -1);
    const Placed student_in(*backend, student), teacher_in(*backend, teacher),
        grad_out(*backend, grad);
    backend->divergence(grad_out, found, student_in, teacher_in, vocab, weights);
    cpu->divergence(grad, expected, student, teacher, vocab, weights);
    const Matrix found_grad = grad_out.fetch();
    EXPECT_LT(distance(found_grad, grad), bound());
    for (size_t r = 0; r < 3; ++r) EXPECT_NEAR(found[r], expected[r], 1e-5);
    for (int64_t c = 0; c < padded; ++c) {
      EXPECT_EQ(found_grad.at(1, c), 0);
      EXPECT_TRUE(c < vocab || found_grad.at(2, c) == 0);
    }
  }
}

}  // namespace
}  // namespace medusa
