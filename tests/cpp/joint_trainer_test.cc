#include "medusa/joint_trainer.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>

#include "backend/cpu/isa.h"
#include "joint_case.h"
#include "medusa/error.h"

namespace medusa {
namespace {

using testing::JointCase;
using testing::TokenData;

std::vector<std::vector<float>> weights(const JointTrainer& trainer) {
  std::vector<std::vector<float>> out;
  for (const Parameter& p : trainer.parameters())
    out.emplace_back(p.weights.begin(), p.weights.end());
  return out;
}

double norm(const JointTrainer& trainer, bool heads) {
  double sum = 0;
  for (const Parameter& p : trainer.parameters()) {
    const bool of_head = p.name[0] >= '0' && p.name[0] <= '9';
    for (const float g : p.gradients) sum += of_head == heads ? double{g} * g : 0;
  }
  return std::sqrt(sum);
}

/// MEDUSA_CPU_ISA while it lives.
class ChosenIsa {
 public:
  explicit ChosenIsa(const std::string& name) { setenv("MEDUSA_CPU_ISA", name.c_str(), 1); }
  ~ChosenIsa() { unsetenv("MEDUSA_CPU_ISA"); }
};

class JointTrainerTest : public ::testing::TestWithParam<bool> {
 protected:
  JointTrainerOptions options() const { return JointCase::options(GetParam()); }
};
INSTANTIATE_TEST_SUITE_P(of, JointTrainerTest, ::testing::Bool(), [](const auto& tested) {
  return tested.param ? "all_weights" : "adapters";
});

TEST_P(JointTrainerTest, gradients_are_slopes_of_the_loss) {
  for (const bool tied : {true, false}) {
    JointCase c(tied);
    JointTrainerOptions o = options();
    o.training.compute_type = ComputeType::float32;
    o.lora_dropout = 0;
    JointTrainer trainer = c.trainer(o, {}, true);
    std::mt19937 random(5);
    for (const Parameter& p : trainer.parameters()) {
      if (p.name.find("lora_B") == std::string::npos) continue;
      for (size_t i = 0; i < p.weights.size(); ++i) {  // padding of the rank stays zero
        if (i % 32 < 4) p.weights[i] = 0.1f * static_cast<float>(random() % 100) / 100;
      }
    }
    trainer.refresh();
    trainer.backward(c.batches());
    for (const Parameter& p : trainer.parameters()) {
      const std::vector<float> gradients(p.gradients.begin(), p.gradients.end());
      const auto at = std::max_element(gradients.begin(), gradients.end()) - gradients.begin();
      const auto i = static_cast<size_t>(at);
      const float old = p.weights[i], reach = 4e-3f;
      double loss[2];
      for (const int side : {0, 1}) {
        p.weights[i] = old + (side == 0 ? -reach : reach);
        trainer.refresh();
        loss[side] = trainer.backward(c.batches()).loss;
      }
      p.weights[i] = old;
      EXPECT_NEAR((loss[1] - loss[0]) / (2 * reach), gradients[i], 0.02 * gradients[i] + 1e-4)
          << p.name;
    }
    trainer.refresh();
  }
}

TEST_P(JointTrainerTest, bits_do_not_depend_on_threads_on_any_isa) {
  JointCase c;
  for (const cpu::Isa isa : cpu::supported_isas()) {
    const ChosenIsa chosen(std::string(cpu::name(isa)));
    std::vector<std::vector<std::vector<float>>> found;
    for (const int threads : {1, 2, 4}) {
      JointTrainerOptions o = options();
      o.training.num_threads = threads;
      JointTrainer trainer = c.trainer(o);
      for (int step = 0; step < 2; ++step) trainer.step(c.batches());
      found.push_back(weights(trainer));
    }
    EXPECT_EQ(found[0], found[1]) << cpu::name(isa);
    EXPECT_EQ(found[0], found[2]) << cpu::name(isa);
  }
}

TEST_P(JointTrainerTest, goes_on_to_the_same_bits) {
  JointCase c;
  JointTrainer whole = c.trainer(options()), first = c.trainer(options());
  for (int step = 0; step < 5; ++step) whole.step(c.batches());
  for (int step = 0; step < 2; ++step) first.step(c.batches());
  JointTrainer second = c.trainer(options());
  for (size_t i = 0; i < second.parameters().size(); ++i) {
    const Parameter &from = first.parameters()[i], &to = second.parameters()[i];
    std::copy(from.weights.begin(), from.weights.end(), to.weights.begin());
    std::copy(from.mean.begin(), from.mean.end(), to.mean.begin());
    std::copy(from.square.begin(), from.square.end(), to.square.begin());
  }
  second.refresh();
  second.set_num_steps(first.num_steps());
  for (int step = 2; step < 5; ++step) second.step(c.batches());
  EXPECT_EQ(weights(whole), weights(second));
}

TEST_P(JointTrainerTest, the_loss_falls) {
  JointCase c;
  JointTrainerOptions o = options();
  o.backbone_loss = BackboneLoss::cross_entropy;
  JointTrainer trainer = c.trainer(o);
  const double before = trainer.step(c.batches()).loss;
  for (int step = 1; step < 6; ++step) trainer.step(c.batches());
  EXPECT_LT(trainer.backward(c.batches()).loss, 0.9 * before);
}

TEST_P(JointTrainerTest, a_stage_of_heads_leaves_the_backbone_and_its_gradient_alone) {
  JointCase c;
  JointTrainerOptions o = options();
  o.training.version = 2;  // heads project by lm_head
  o.stages = {{.steps = 2, .heads_only = true}, {.steps = 2}};
  JointTrainer trainer = c.trainer(o);
  const auto before = weights(trainer);
  const JointReport report = trainer.step(c.batches());
  EXPECT_EQ(norm(trainer, false), 0);
  EXPECT_NEAR(report.grad_norm, norm(trainer, true), 1e-6 * report.grad_norm);
  EXPECT_EQ(report.backbone_loss, 0);
  const auto after = weights(trainer);
  for (size_t i = 0; i < after.size(); ++i) {
    EXPECT_EQ(after[i] == before[i], trainer.parameters()[i].name[0] > '9');
  }
  for (int step = 1; step < 3; ++step) trainer.step(c.batches());
  EXPECT_GT(norm(trainer, false), 0);
}

TEST_P(JointTrainerTest, what_is_not_finite_stops_before_the_update) {
  JointCase c;
  JointTrainer trainer = c.trainer(options());
  trainer.step(c.batches());
  trainer.parameters().back().weights[0] = INFINITY;
  trainer.refresh();
  const auto before = weights(trainer);
  EXPECT_THROW(trainer.step(c.batches()), Error);
  EXPECT_EQ(trainer.num_steps(), 1);
  EXPECT_EQ(weights(trainer), before);
}

TEST(JointTrainerBackbone, a_tied_lm_head_is_trained_once) {
  for (const bool tied : {true, false}) {
    JointCase c(tied);
    const JointTrainer trainer = c.trainer(JointCase::options(true));
    int embeddings = 0, outputs = 0;
    for (const Parameter& p : trainer.parameters()) {
      embeddings += p.name == "model.embed_tokens.weight";
      outputs += p.name == "lm_head.weight";
    }
    EXPECT_EQ(embeddings, 1);
    EXPECT_EQ(outputs, tied ? 0 : 1);
  }
}

}  // namespace
}  // namespace medusa
