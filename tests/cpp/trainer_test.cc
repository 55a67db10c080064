#include "medusa/trainer.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

#include "medusa/error.h"

namespace medusa {
namespace {

constexpr int64_t kHidden = 32, kVocab = 50, kRows = 400;

// States, targets and a projection, all random.
struct Problem {
  std::vector<float> hidden = std::vector<float>(kRows * kHidden);
  std::vector<float> lm_head = std::vector<float>(kVocab * kHidden);
  std::vector<int64_t> rows = std::vector<int64_t>(kRows);
  std::vector<int32_t> targets = std::vector<int32_t>(kRows * 2);

  Problem() {
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    for (float& x : hidden) x = normal(random);
    for (float& x : lm_head) x = normal(random);
    for (int64_t i = 0; i < kRows; ++i) rows[static_cast<size_t>(i)] = i;
    for (int32_t& t : targets) t = static_cast<int32_t>(random() % kVocab);
  }
  Trainer trainer(TrainerOptions options) {
    options.num_heads = 2;
    options.total_steps = 100;
    return Trainer(options, tensor(lm_head, kVocab));
  }
  TrainBatch batch() { return {tensor(hidden, kRows), rows, targets}; }

 private:
  static HostTensor tensor(const std::vector<float>& x, int64_t count) {
    return {x.data(), x.size() * sizeof(float), DType::f32, {count, kHidden}};
  }
};

TEST(TrainerTest, gradients_are_slopes_of_the_loss) {
  Problem problem;
  for (const int version : {1, 2}) {
    Trainer trainer = problem.trainer(
        {.version = version, .num_layers = 2, .compute_type = ComputeType::float32});
    trainer.backward(problem.batch());
    for (const Parameter& p : trainer.parameters()) {
      const std::vector<float> gradients(p.gradients.begin(), p.gradients.end());
      const size_t i = gradients.size() / 3;
      const float old = p.weights[i];
      double loss[2];
      for (const int side : {0, 1}) {
        p.weights[i] = old + (side == 0 ? -0.01f : 0.01f);
        trainer.refresh();
        loss[side] = trainer.backward(problem.batch()).loss;
      }
      p.weights[i] = old;
      trainer.refresh();
      EXPECT_NEAR((loss[1] - loss[0]) / 0.02, gradients[i], 3e-4) << p.name;
    }
  }
}

TEST(TrainerTest, bits_do_not_depend_on_threads) {
  Problem problem;
  for (const ComputeType type : {ComputeType::float32, ComputeType::bfloat16}) {
    std::vector<Trainer> trainers;
    for (const int threads : {1, 2}) {
      trainers.push_back(
          problem.trainer({.version = 1, .compute_type = type, .num_threads = threads}));
      for (int step = 0; step < 3; ++step) trainers.back().step(problem.batch());
    }
    for (size_t i = 0; i < trainers[0].parameters().size(); ++i) {
      const auto a = trainers[0].parameters()[i].weights, b = trainers[1].parameters()[i].weights;
      EXPECT_TRUE(std::equal(a.begin(), a.end(), b.begin()));
    }
  }
}

TEST(TrainerTest, the_loss_falls) {
  Problem problem;
  Trainer trainer = problem.trainer({.version = 1, .learning_rate = 1e-2f});
  const double first = trainer.step(problem.batch()).loss;
  for (int step = 1; step < 50; ++step) trainer.step(problem.batch());
  EXPECT_LT(trainer.backward(problem.batch()).loss, 0.7 * first);
}

TEST(TrainerTest, what_is_not_finite_stops_before_the_update) {
  Problem problem;
  Trainer trainer = problem.trainer({});
  trainer.step(problem.batch());
  const std::vector<float> before(trainer.parameters()[0].weights.begin(),
                                  trainer.parameters()[0].weights.end());
  problem.hidden[7] = std::numeric_limits<float>::infinity();
  EXPECT_THROW(trainer.step(problem.batch()), Error);
  EXPECT_EQ(trainer.num_steps(), 1);
  EXPECT_TRUE(std::equal(before.begin(), before.end(), trainer.parameters()[0].weights.begin()));
}

TEST(TrainerTest, refuses_what_does_not_fit) {
  Problem problem;
  EXPECT_THROW(problem.trainer({.version = 0}), InvalidArgument);
  EXPECT_THROW(problem.trainer({.learning_rate = 0}), InvalidArgument);
  Trainer trainer = problem.trainer({});
  problem.targets[3] = kVocab;
  EXPECT_THROW(trainer.step(problem.batch()), InvalidArgument);
  problem.targets[3] = -1;
  problem.rows[0] = kRows;
  EXPECT_THROW(trainer.step(problem.batch()), InvalidArgument);
  EXPECT_THROW(trainer.set_num_steps(101), InvalidArgument);
}

}  // namespace
}  // namespace medusa
