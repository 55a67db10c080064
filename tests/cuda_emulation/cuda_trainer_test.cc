// The whole trainer of Medusa-1 on the device under test, beside the CPU's.
#include <cmath>
#include <limits>
#include <random>

#include "medusa/error.h"
#include "medusa/trainer.h"
#include "train_case.h"

namespace medusa {
namespace {

class CudaTrainerTest : public DeviceCaseTest {
 protected:
  /// Two chunks of rows, where that does not take too long.
  int64_t many_rows() const {
    return GetParam().schedule == 0 && GetParam().compute == ComputeType::bfloat16 ? 390 : 40;
  }
};
MEDUSA_FOR_EVERY_TRAIN_CASE(CudaTrainerTest);

constexpr int64_t kHidden = 32, kVocab = 50;

// States, targets and a projection, all random; of grounded heads roots and their embeddings.
struct Problem {
  explicit Problem(int64_t rows = 23)
      : hidden(random_matrix(DType::f32, rows, kHidden, 1)),
        lm_head(random_matrix(DType::f32, kVocab, kHidden, 2)),
        embedding(random_matrix(DType::bf16, kVocab, kHidden, 3)) {
    std::mt19937 random(4);
    for (int64_t i = 0; i < rows; ++i) {
      order.push_back((7 * i + 3) % rows);
      roots.push_back(static_cast<int32_t>(random() % kVocab));
      targets.push_back(static_cast<int32_t>(random() % kVocab));
      targets.push_back(static_cast<int32_t>(random() % (kVocab + 1)) - 1);
    }
  }
  Trainer trainer(TrainerOptions o, const std::string& device, bool grounded = false) const {
    o.num_heads = 2;
    o.learning_rate = 1e-2f;
    o.total_steps = 60;
    o.device = device;
    const auto table = grounded ? std::optional(host_tensor(embedding)) : std::nullopt;
    return Trainer(o, host_tensor(lm_head), table);
  }
  TrainBatch batch(bool grounded = false) const {
    TrainBatch b{host_tensor(hidden), order, targets};
    if (grounded) b.roots = roots;
    return b;
  }

  Matrix hidden, lm_head, embedding;
  std::vector<int64_t> order;
  std::vector<int32_t> targets, roots;
};

bool same(std::span<const float> a, std::span<const float> b) {
  return std::ranges::equal(a, b, [](float x, float y) {
    return std::bit_cast<uint32_t>(x) == std::bit_cast<uint32_t>(y);
  });
}

bool same_state(const Trainer& a, const Trainer& b) {
  for (size_t i = 0; i < a.parameters().size(); ++i) {
    const Parameter &p = a.parameters()[i], &q = b.parameters()[i];
    if (!same(p.weights, q.weights) || !same(p.mean, q.mean) || !same(p.square, q.square))
      return false;
  }
  return true;
}

TEST_P(CudaTrainerTest, losses_follow_the_cpus) {
  const Problem problem;
  for (const int version : {1, 2}) {
    const bool grounded = version == 2;
    const TrainerOptions options{
        .version = version, .num_layers = 2, .compute_type = GetParam().compute};
    Trainer device = problem.trainer(options, "cuda", grounded);
    Trainer host = problem.trainer(options, "cpu", grounded);
    EXPECT_TRUE(device.device_name().starts_with("cuda (")) << device.device_name();
    double first = 0, last = 0;
    for (int step = 0; step < (GetParam().schedule == 0 ? 20 : 4); ++step) {
      const StepReport a = device.step(problem.batch(grounded));
      const StepReport b = host.step(problem.batch(grounded));
      const double close = GetParam().compute == ComputeType::float32 ? 2e-4 : 2e-2;
      ASSERT_NEAR(a.loss, b.loss, close * b.loss) << "step " << step;
      ASSERT_NEAR(a.grad_norm, b.grad_norm, 2 * close * b.grad_norm) << "step " << step;
      if (step == 0) first = a.loss;
      last = a.loss;
    }
    EXPECT_LT(last, 0.99 * first);
  }
}

TEST_P(CudaTrainerTest, gradients_are_the_cpus) {
  const Problem problem(many_rows());
  for (const int version : {1, 2}) {
    const TrainerOptions options{.version = version, .compute_type = GetParam().compute};
    Trainer device = problem.trainer(options, "cuda"), host = problem.trainer(options, "cpu");
    const StepReport a = device.backward(problem.batch()), b = host.backward(problem.batch());
    EXPECT_NEAR(a.loss, b.loss, 1e-4 * b.loss);
    for (size_t k = 0; k < 2; ++k) EXPECT_NEAR(a.head_accuracy[k], b.head_accuracy[k], 0.03);
    const double relative = GetParam().compute == ComputeType::float32 ? 1e-5 : 2e-2;
    for (size_t i = 0; i < host.parameters().size(); ++i) {
      const Parameter &found = device.parameters()[i], &expected = host.parameters()[i];
      double error = 0, norm = 0;
      for (size_t j = 0; j < expected.gradients.size(); ++j) {
        error += std::pow(found.gradients[j] - expected.gradients[j], 2);
        norm += std::pow(expected.gradients[j], 2);
      }
      EXPECT_LT(std::sqrt(error), relative * std::sqrt(norm)) << expected.name;
    }
  }
}

TEST_P(CudaTrainerTest, the_same_seed_gives_the_same_bits_and_a_checkpoint_goes_on) {
  const Problem problem;
  const TrainerOptions options{.version = 1, .compute_type = GetParam().compute, .seed = 5};
  Trainer whole = problem.trainer(options, "cuda"), again = problem.trainer(options, "cuda");
  Trainer resumed = problem.trainer(options, "cuda");
  for (int step = 0; step < 3; ++step) {
    whole.step(problem.batch());
    again.step(problem.batch());
  }
  EXPECT_TRUE(same_state(whole, again));
  for (size_t i = 0; i < whole.parameters().size(); ++i) {  // a checkpoint, by way of the host
    const Parameter &from = whole.parameters()[i], &to = resumed.parameters()[i];
    std::ranges::copy(from.weights, to.weights.begin());
    std::ranges::copy(from.mean, to.mean.begin());
    std::ranges::copy(from.square, to.square.begin());
  }
  resumed.refresh();
  resumed.set_num_steps(3);
  for (Trainer* trainer : {&whole, &again, &resumed}) {
    for (int step = 0; step < 2; ++step) trainer->step(problem.batch());
  }
  EXPECT_TRUE(same_state(whole, again));
  EXPECT_TRUE(same_state(whole, resumed));
}

TEST_P(CudaTrainerTest, evaluates_as_the_cpu_does) {
  const Problem problem(many_rows());
  const TrainerOptions options{.version = 2, .compute_type = GetParam().compute};
  Trainer device = problem.trainer(options, "cuda"), host = problem.trainer(options, "cpu");
  const size_t count = problem.targets.size();
  std::vector<float> found(count), expected(count);
  std::vector<int32_t> ranks(count), expected_ranks(count);
  device.evaluate(problem.batch(), found, ranks);
  host.evaluate(problem.batch(), expected, expected_ranks);
  int64_t off = 0;
  for (size_t i = 0; i < count; ++i) {
    ASSERT_NEAR(found[i], expected[i], 1e-3 * std::abs(expected[i]) + 1e-4);
    ASSERT_EQ(ranks[i] < 0, problem.targets[i] < 0);
    off += ranks[i] != expected_ranks[i];
  }
  EXPECT_LE(off, static_cast<int64_t>(count / 50));
}

TEST_P(CudaTrainerTest, what_is_not_finite_stops_before_the_update) {
  Problem problem;
  const TrainerOptions options{.version = 1, .compute_type = GetParam().compute};
  Trainer trainer = problem.trainer(options, "cuda"), untouched = problem.trainer(options, "cuda");
  trainer.step(problem.batch());
  untouched.step(problem.batch());
  for (const float bad : {std::numeric_limits<float>::infinity(), std::nanf("")}) {
    problem.hidden.set(4, 7, bad);
    EXPECT_THROW(trainer.step(problem.batch()), Error);
    EXPECT_EQ(trainer.num_steps(), 1);
    EXPECT_TRUE(same_state(trainer, untouched));
  }
}

}  // namespace
}  // namespace medusa
