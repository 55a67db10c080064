#include <gtest/gtest.h>

#include "verb_case.h"

namespace medusa {
namespace {

class BackboneVerbsTest : public VerbTest {};
INSTANTIATE_TEST_SUITE_P(every_isa, BackboneVerbsTest, testing::ValuesIn(all_verb_cases()),
                         verb_case_name);

/// A weight in a stored format, and its elements as they are read.
struct Stored {
  Matrix floats;
  std::vector<uint8_t> bytes;
  FrozenMatrix view;
};

// Random blocks: what their bytes mean is dequantize()'s to say.
Stored stored_weight(DType dtype, int64_t out, int64_t in) {
  Stored w{Matrix(DType::f32, out, in), {}, {}};
  const auto blocks = static_cast<size_t>(out * in / block_elements(dtype));
  w.bytes.resize(blocks * block_bytes(dtype));
  std::mt19937 generator(7);
  if (block_elements(dtype) == 1) {
    for (int64_t i = 0; i < out * in; ++i) {
      const float value = std::normal_distribution<float>(0, 1)(generator);
      if (dtype == DType::f32) std::memcpy(w.bytes.data() + i * 4, &value, 4);
      const bf16 half = to_bf16(value);
      if (dtype == DType::bf16) std::memcpy(w.bytes.data() + i * 2, &half, 2);
    }
  } else {
    for (size_t i = 0; i < w.bytes.size(); ++i) {
      const size_t at = i % block_bytes(dtype);  // f16 scales, of about a tenth
      w.bytes[i] = at < 4 ? (at % 2 == 0 ? 0x66 : 0x2e) : static_cast<uint8_t>(generator());
    }
  }
  dequantize(w.floats.view().row<float>(0), w.bytes.data(), dtype, out * in);
  w.view = {w.bytes.data(), dtype, out, in};
  return w;
}

TEST_P(BackboneVerbsTest, products_with_a_frozen_weight_of_any_format) {
  for (const DType dtype : {DType::f32, DType::bf16, DType::q4_1, DType::q4_0, DType::q4_k}) {
    constexpr int64_t kOut = 1093, kPadded = 1120, kIn = 256, kRows = 32;
    const Stored w = stored_weight(dtype, kOut, kIn);
    const Matrix x = random(kRows, kIn, 1), y(DType::f32, kRows, kPadded);
    backend->linear(y, x, w.view, false);
    backend->linear(y, x, w.view, true);
    EXPECT_LT(error(y,
                    [&](int64_t r, int64_t n) {
                      double sum = 0;
                      for (int64_t k = 0; n < kOut && k < kIn; ++k)
                        sum += x.at(r, k) * w.floats.at(n, k);
                      return 2 * sum;
                    }),
              rounding)
        << name(dtype);
    const Matrix dy = random(kRows, kPadded, 2), dx(DType::f32, kRows, kIn);
    backend->linear_backward(dx, dy, w.view, false);
    EXPECT_LT(error(dx,
                    [&](int64_t r, int64_t k) {
                      double sum = 0;
                      for (int64_t n = 0; n < kOut; ++n) sum += dy.at(r, n) * w.floats.at(n, k);
                      return sum;
                    }),
              rounding)
        << name(dtype);
    EXPECT_TRUE(y.guards_intact() && dx.guards_intact());
  }
}

TEST_P(BackboneVerbsTest, products_do_not_depend_on_threads_or_other_rows) {
  const Stored w = stored_weight(DType::bf16, 544, 96);
  const Matrix x = random(128, 96, 1), dy = random(128, 544, 2);
  const Matrix all(DType::f32, 128, 544), some(DType::f32, 32, 544);
  const Matrix dx(DType::f32, 128, 96), dx_some(DType::f32, 32, 96);
  const auto three = GetParam().backend(3), one = GetParam().backend(1);
  three->linear(all, x, w.view, false);
  one->linear(some, x.view().slice(96, 32), w.view, false);
  three->linear_backward(dx, dy, w.view, false);
  one->linear_backward(dx_some, dy.view().slice(96, 32), w.view, false);
  for (int64_t r = 0; r < 32; ++r) {
    EXPECT_TRUE(some.same_row(r, all, 96 + r));
    EXPECT_TRUE(dx_some.same_row(r, dx, 96 + r));
  }
}

TEST_P(BackboneVerbsTest, outer_products) {
  const Matrix a = random(64, 224, 1), b = random(64, 48, 2), c(DType::f32, 211, 48);
  Panels panels = backend->allocate_panels(64, 48);
  backend->pack(panels, b);
  backend->outer(c, a, panels, false);
  backend->outer(c, a, panels, true);
  EXPECT_LT(error(c,
                  [&](int64_t m, int64_t n) {
                    double sum = 0;
                    for (int64_t k = 0; k < 64; ++k) sum += a.at(k, m) * b.at(k, n);
                    return 2 * sum;
                  }),
            1e-5);
  EXPECT_TRUE(c.guards_intact());
}

TEST_P(BackboneVerbsTest, a_norm_and_its_gradient) {
  constexpr int64_t kRows = 5, kCols = 96;
  const Matrix x = wide(kRows, kCols, 1), w = wide(1, kCols, 2), dy = wide(kRows, kCols, 3);
  const Matrix y(GetParam().dtype(), kRows, kCols), dx = wide(kRows, kCols, 4);
  const Matrix before = wide(kRows, kCols, 4);
  backend->rms_norm(y, x, w.view().row<float>(0), 1e-3f);
  backend->rms_norm_backward(dx, dy, x, w.view().row<float>(0), 1e-3f, true);
  const auto mean = [&](int64_t r, const auto& term) {
    double sum = 0;
    for (int64_t c = 0; c < kCols; ++c) sum += term(r, c);
    return sum / kCols;
  };
  const auto inverse = [&](int64_t r) {
    return 1 /
           std::sqrt(mean(r, [&](int64_t i, int64_t c) { return x.at(i, c) * x.at(i, c); }) + 1e-3);
  };
  EXPECT_LT(error(y, [&](int64_t r, int64_t c) { return x.at(r, c) * inverse(r) * w.at(0, c); }),
            rounding);
  EXPECT_LT(
      error(dx,
            [&](int64_t r, int64_t c) {
              const double s = inverse(r);
              const double dot = mean(
                  r, [&](int64_t i, int64_t j) { return x.at(i, j) * w.at(0, j) * dy.at(i, j); });
              return before.at(r, c) + s * w.at(0, c) * dy.at(r, c) - x.at(r, c) * s * s * s * dot;
            }),
      2e-6);
}

TEST_P(BackboneVerbsTest, rotation_and_back) {
  constexpr int64_t kDim = 32, kRows = 3;
  const Matrix cos = wide(8, kDim / 2, 1), sin = wide(8, kDim / 2, 2);
  const Matrix x = wide(kRows, 2 * kDim, 3);
  const std::vector<int32_t> positions = {0, 7, 2};
  for (const bool interleaved : {false, true}) {
    const Rope rope{cos.view().row<float>(0), sin.view().row<float>(0), interleaved};
    for (const bool inverse : {false, true}) {
      const Matrix y = wide(kRows, 2 * kDim, 3);
      backend->rotate(y, positions, rope, kDim, inverse);
      EXPECT_LT(error(y,
                      [&](int64_t r, int64_t c) {
                        const int64_t in = c % kDim, head = c - in;
                        const int64_t i = interleaved ? in / 2 : in % (kDim / 2);
                        const bool first = interleaved ? in % 2 == 0 : in < kDim / 2;
                        const double a = x.at(r, head + (interleaved ? 2 * i : i));
                        const double b = x.at(r, head + (interleaved ? 2 * i + 1 : i + kDim / 2));
                        const double co = cos.at(positions[static_cast<size_t>(r)], i);
                        const double si =
                            (inverse ? -1 : 1) * sin.at(positions[static_cast<size_t>(r)], i);
                        return first ? a * co - b * si : b * co + a * si;
                      }),
                1e-6);
    }
  }
}

TEST_P(BackboneVerbsTest, silu_mul_and_its_gradient) {
  const Matrix g = wide(3, 64, 1), u = wide(3, 64, 2), dy = wide(3, 64, 3);
  const Matrix y(GetParam().dtype(), 3, 64), dg(GetParam().dtype(), 3, 64),
      du(GetParam().dtype(), 3, 64);
  backend->silu_mul(y, g, u);
  backend->silu_mul_backward(dg, du, dy, g, u);
  const auto sigmoid = [&](int64_t r, int64_t c) { return 1 / (1 + std::exp(-g.at(r, c))); };
  EXPECT_LT(error(y, [&](int64_t r, int64_t c) { return g.at(r, c) * sigmoid(r, c) * u.at(r, c); }),
            rounding);
  EXPECT_LT(
      error(du, [&](int64_t r, int64_t c) { return dy.at(r, c) * g.at(r, c) * sigmoid(r, c); }),
      rounding);
  EXPECT_LT(error(dg,
                  [&](int64_t r, int64_t c) {
                    const double s = sigmoid(r, c);
                    return dy.at(r, c) * u.at(r, c) * s * (1 + g.at(r, c) * (1 - s));
                  }),
            rounding);
}

TEST_P(BackboneVerbsTest, divergence_and_its_gradient) {
  constexpr int64_t kVocab = 75, kPadded = 96;
  const Matrix s = wide(3, kPadded, 1), t = wide(3, kPadded, 2);
  const Matrix student = wide(3, kPadded, 1), teacher = wide(3, kPadded, 2);
  const Matrix grad(GetParam().dtype(), 3, kPadded);
  const std::vector<float> weights = {0.5f, 0.0f, 2.0f};
  std::vector<double> found(3);
  backend->divergence(grad, found, student, teacher, kVocab, weights);
  for (int64_t r = 0; r < 3; ++r) {
    double sum_s = 0, sum_t = 0, divergence = 0;
    for (int64_t c = 0; c < kVocab; ++c) {
      sum_s += std::exp(s.at(r, c));
      sum_t += std::exp(t.at(r, c));
    }
    const double weight = weights[static_cast<size_t>(r)];
    for (int64_t c = 0; c < kPadded; ++c) {
      const bool real = c < kVocab && weight > 0;
      const double p = real ? std::exp(t.at(r, c)) / sum_t : 0;
      const double q = real ? std::exp(s.at(r, c)) / sum_s : 0;
      if (real) divergence += p * std::log(p / q);
      EXPECT_NEAR(grad.at(r, c), weight * (q - p), rounding * weight * (p + q) + 1e-7);
    }
    EXPECT_NEAR(found[static_cast<size_t>(r)], divergence, 1e-5);
  }
}

TEST_P(BackboneVerbsTest, dropout_keeps_its_share_and_is_drawn_again) {
  constexpr int64_t kRows = 64, kCols = 576;
  const DType dtype = GetParam().dtype();
  Matrix x(dtype, kRows, kCols), ones(DType::f32, kRows, kCols);
  const Matrix once(dtype, kRows, kCols), again(dtype, 32, kCols), sum(DType::f32, kRows, kCols);
  for (int64_t i = 0; i < kRows * kCols; ++i) {
    x.set(i / kCols, i % kCols, 1);
    ones.set(i / kCols, i % kCols, 1);
  }
  Dropout noise{.probability = 0.25f, .seed = 9, .step = 3, .site = 5, .first_row = 100};
  backend->dropout(once, x, noise);
  backend->add_dropped(sum, ones, noise);
  noise.first_row += 32;
  GetParam().backend(1)->dropout(again, x.view().slice(32, 32), noise);
  int64_t kept = 0;
  for (int64_t r = 0; r < kRows; ++r) {
    for (int64_t c = 0; c < kCols; ++c) {
      kept += once.at(r, c) != 0;
      EXPECT_NEAR(sum.at(r, c), once.at(r, c) != 0 ? 4.0 / 3 : 0, 1e-6);
    }
  }
  EXPECT_NEAR(static_cast<double>(kept) / (kRows * kCols), 0.75, 0.01);
  for (int64_t r = 0; r < 32; ++r) EXPECT_TRUE(again.same_row(r, once, 32 + r));
  noise.site = 6;
  const Matrix other(GetParam().dtype(), kRows, kCols);
  backend->dropout(other, x, noise);
  EXPECT_FALSE(other.same(once));
}

TEST(DropoutTest, is_the_same_on_every_instruction_set) {
  std::vector<Matrix> found;
  for (const VerbCase& tested : all_verb_cases()) {
    if (tested.compute != ComputeType::float32) continue;
    const Matrix x = random_matrix(DType::f32, 4, 160, 1);
    found.emplace_back(DType::f32, 4, 160);
    tested.backend()->dropout(found.back(), x, {.probability = 0.3f, .seed = 4, .step = 1});
    EXPECT_TRUE(found.back().same(found.front())) << tested.kernels->name;
  }
}

}  // namespace
}  // namespace medusa
