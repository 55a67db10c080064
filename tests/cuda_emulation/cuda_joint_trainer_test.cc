#include "medusa/joint_trainer.h"

#include "device_case.h"
#include "tiny_model.h"

namespace medusa {
namespace {

constexpr int kHeads = 2, kRows = 29;

/// Three documents of random tokens; heads may name every second token.
struct Data {
  explicit Data(unsigned seed, bool trimmed) {
    std::mt19937 random(seed);
    for (int i = 0; i < kRows; ++i) tokens.push_back(static_cast<int32_t>(random() % 101));
    for (int32_t id = 0; trimmed && id < 101; id += 2) token_map.push_back(id);
    const int32_t draft = trimmed ? 51 : 101;
    for (int i = 0; i < kRows; ++i) {
      lm.push_back(i % 7 == 3 ? -1 : static_cast<int32_t>(random() % 101));
      for (int k = 0; k < kHeads; ++k) {
        heads.push_back(i % 5 == k ? -1 : static_cast<int32_t>(random() % draft));
      }
    }
  }
  TokenBatch batch() const { return {tokens, lengths, lm, heads}; }

  std::vector<int32_t> tokens, lengths = {17, 3, 9}, lm, heads, token_map;
};

struct JointCase {
  const char* name;
  ComputeType compute;
  int version;
  BackboneLoss loss;
  bool grounded, trimmed;
  int layers;
  double bound;  // of losses beside the CPU's
  bool all_weights = false;
};

const JointCase kCases[] = {
    {"f32_distilled", ComputeType::float32, 2, BackboneLoss::divergence, true, true, 1, 2e-5},
    {"f32_labels", ComputeType::float32, 1, BackboneLoss::cross_entropy, false, false, 1, 2e-5},
    {"bf16_distilled", ComputeType::bfloat16, 2, BackboneLoss::divergence, false, true, 2, 2e-2},
    {"bf16_labels", ComputeType::bfloat16, 1, BackboneLoss::cross_entropy, true, false, 1, 2e-2},
    {"f32_all", ComputeType::float32, 2, BackboneLoss::divergence, true, true, 1, 2e-5, true},
    {"bf16_all", ComputeType::bfloat16, 2, BackboneLoss::cross_entropy, false, false, 2, 2e-2,
     true},
};

class CudaJointTrainerTest : public ::testing::TestWithParam<JointCase> {
 protected:
  void TearDown() override {
    device::check_memory();
    device::choose_schedule(0);
  }
  JointTrainer trainer(const std::string& device) {
    JointTrainerOptions o;
    o.training.version = GetParam().version;
    o.training.num_heads = kHeads;
    o.training.compute_type = GetParam().compute;
    o.training.num_threads = 1;
    o.training.device = device;
    o.training.seed = 5;
    o.stages = {{.steps = 2, .heads_only = true, .learning_rate = 3e-3f},
                {.steps = 20, .learning_rate = 3e-3f, .warmup_steps = 2}};
    o.backbone_loss = GetParam().loss;
    o.lora_rank = 8;
    o.all_weights = GetParam().all_weights;
    if (o.all_weights) o.target_modules.clear();
    if (GetParam().version == 1) o.target_modules = {"k_proj", "down_proj", "lm_head"};
    o.lora_dropout = 0.1f;
    o.max_rows = 32;
    return JointTrainer(model.config(), model.tensors(), o, data.token_map, GetParam().grounded);
  }
  // Every second step adds up the gradients of two batches.
  JointReport step(JointTrainer& trainer) {
    const TokenBatch batches[] = {data.batch(), other.batch()};
    return trainer.step(std::span(batches).first(trainer.num_steps() % 2 == 0 ? 1 : 2));
  }

  testing::TinyModel model{1, ComputeType::bfloat16, 2, "cpu", GetParam().layers};
  Data data{1, GetParam().trimmed}, other{2, GetParam().trimmed};
};
INSTANTIATE_TEST_SUITE_P(every_case, CudaJointTrainerTest, ::testing::ValuesIn(kCases),
                         [](const auto& tested) { return tested.param.name; });

void expect_same_bits(const JointTrainer& a, const JointTrainer& b) {
  for (size_t i = 0; i < a.parameters().size(); ++i) {
    const auto x = a.parameters()[i].weights, y = b.parameters()[i].weights;
    EXPECT_TRUE(std::equal(x.begin(), x.end(), y.begin(), y.end())) << a.parameters()[i].name;
  }
}

TEST_P(CudaJointTrainerTest, steps_are_those_of_the_cpu) {
  JointTrainer on_device = trainer("cuda"), on_cpu = trainer("cpu");
  const int steps = GetParam().compute == ComputeType::float32 ? 10 : 4;
  for (int i = 0; i < steps; ++i) {
    const JointReport found = step(on_device), expected = step(on_cpu);
    const double most = GetParam().bound;
    EXPECT_NEAR(found.loss, expected.loss, most * expected.loss) << i;
    EXPECT_NEAR(found.backbone_loss, expected.backbone_loss, most * (0.1 + expected.backbone_loss));
    EXPECT_NEAR(found.grad_norm, expected.grad_norm, 5 * most * expected.grad_norm) << i;
    for (size_t k = 0; k < kHeads; ++k) {
      EXPECT_NEAR(found.head_loss[k], expected.head_loss[k], most * expected.head_loss[k]);
    }
  }
  std::vector<float> scores[2][4];
  std::vector<int32_t> ranks(kRows * kHeads);
  for (int side : {0, 1}) {
    auto& [own, base, divergence, heads] = scores[side];
    for (auto* rows : {&own, &base, &divergence}) rows->resize(kRows);
    heads.resize(kRows * kHeads);
    (side == 0 ? on_device : on_cpu).evaluate(data.batch(), {own, base, divergence, heads, ranks});
  }
  for (int s = 0; s < 4; ++s) {
    for (size_t i = 0; i < scores[0][s].size(); ++i) {
      EXPECT_NEAR(scores[0][s][i], scores[1][s][i], 20 * GetParam().bound) << s;
    }
  }
}

TEST_P(CudaJointTrainerTest, a_resumed_run_has_the_same_bits) {
  JointTrainer whole = trainer("cuda"), resumed = trainer("cuda");
  for (int i = 0; i < 3; ++i) step(whole);
  for (size_t i = 0; i < whole.parameters().size(); ++i) {
    const Parameter &from = whole.parameters()[i], &to = resumed.parameters()[i];
    std::ranges::copy(from.weights, to.weights.begin());
    std::ranges::copy(from.mean, to.mean.begin());
    std::ranges::copy(from.square, to.square.begin());
  }
  resumed.set_num_steps(3);
  resumed.refresh();
  step(whole);
  device::choose_schedule(static_cast<int>(device::schedules().size()) - 1);
  step(resumed);
  expect_same_bits(whole, resumed);
}

}  // namespace
}  // namespace medusa
