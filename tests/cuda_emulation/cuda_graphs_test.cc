// Graph or not, one kernel after another or overlapping: the same tokens.
#include <gtest/gtest.h>

#include <cstdlib>
#include <random>

#include "backend/cuda/kernel_set.h"
#include "device.h"
#include "medusa/engine.h"
#include "medusa/error.h"
#include "tiny_model.h"

namespace medusa {
namespace {

using testing::random_prompt;
using testing::run;
using testing::TinyModel;

using Answers = std::map<int64_t, std::vector<int32_t>>;

// For models loaded in its lifetime.
class Setting {
 public:
  Setting(const char* name, const char* value) : name_(name) { setenv(name, value, 1); }
  ~Setting() { unsetenv(name_); }

 private:
  const char* name_;
};

struct Requests {
  std::vector<int> prompts;
  int num_seqs = 1;
  bool greedy = true;
  AcceptanceMethod method = AcceptanceMethod::exact;
  int schedule = 0;  // of the device under test
};

// They end at different lengths, and one drafts nothing.
Answers answers(const Requests& asked, const char* graphs) {
  const Setting setting("MEDUSA_CUDA_GRAPHS", graphs);
  TinyModel source(7, ComputeType::bfloat16, 1, "cuda");
  source.config().max_position_embeddings = 1024;
  const Model model = source.load();
  const Heads heads = source.random_heads(model, 4);
  Engine engine(
      model, heads, Tree({{0}, {1}, {0, 0}, {0, 1}, {1, 0}, {0, 0, 0}}),
      {.max_num_seqs = asked.num_seqs, .max_model_len = 640, .acceptance_method = asked.method});
  std::mt19937 random(3);
  for (size_t i = 0; i < asked.prompts.size(); ++i) {
    SamplingParams params;
    params.max_tokens = 10 + 5 * static_cast<int>(i % 3);
    params.temperature = asked.greedy ? 0.0f : 0.9f;
    params.seed = i;
    params.speculative = i != 3;
    engine.submit(random_prompt(random, asked.prompts[i], 101), params);
  }
  return run(engine);
}

class CudaGraphsTest : public ::testing::TestWithParam<Requests> {
 protected:
  void SetUp() override { device::choose_schedule(GetParam().schedule); }
  void TearDown() override {
    device::check_memory();
    device::choose_schedule(0);
  }
};

TEST_P(CudaGraphsTest, change_no_token) {
  EXPECT_EQ(answers(GetParam(), "1"), answers(GetParam(), "0"));
}

// Prompts end before borders of pages (64 positions) and of attention's splits (512).
INSTANTIATE_TEST_SUITE_P(
    all, CudaGraphsTest,
    ::testing::Values(Requests{{60}, 1, true}, Requests{{5, 60}, 1, false},
                      Requests{{1, 60, 63, 120, 30}, 4, true},
                      Requests{{1, 60, 63, 120, 30}, 4, false}, Requests{{505}, 1, true},
                      Requests{{60, 20, 30}, 2, true, AcceptanceMethod::typical},
                      Requests{{60, 20, 30}, 2, false, AcceptanceMethod::typical}));

// Several sequences, and sums that decide, under the device's other schedules.
std::vector<Requests> other_schedules() {
  std::vector<Requests> all;
  for (int i = 1; i < static_cast<int>(device::schedules().size()); ++i) {
    all.push_back({{1, 60, 63}, 3, false, AcceptanceMethod::exact, i});
    all.push_back({{60, 20}, 2, false, AcceptanceMethod::typical, i});
  }
  return all;
}
INSTANTIATE_TEST_SUITE_P(schedules, CudaGraphsTest, ::testing::ValuesIn(other_schedules()));

TEST(CudaGraphs, are_on_or_off) {
  const Setting setting("MEDUSA_CUDA_GRAPHS", "yes");
  EXPECT_THROW(TinyModel(1, ComputeType::bfloat16, 1, "cuda").load(), InvalidArgument);
}

bool is_compute_9() { return cuda::describe(0).major == 9; }

TEST(CudaKernels, that_start_early_change_no_token) {
  if (!is_compute_9()) GTEST_SKIP() << "kernels start early from compute capability 9.0 on";
  for (const bool greedy : {true, false}) {
    const Requests asked{{1, 60, 20}, 2, greedy};
    const Answers one_after_another = answers(asked, "1");
    const Setting early("MEDUSA_CUDA_OVERLAP", "1");
    EXPECT_EQ(answers(asked, "1"), one_after_another);
    EXPECT_EQ(answers(asked, "0"), one_after_another);
  }
}

TEST(CudaKernels, are_those_of_the_device_or_those_asked_for) {
  const auto kernels = [](const char* wanted) {
    const Setting setting("MEDUSA_CUDA_KERNELS", wanted);
    return cuda::kernel_set_of(cuda::describe(0));
  };
  const auto best = is_compute_9() ? cuda::KernelSet::sm90 : cuda::KernelSet::portable;
  EXPECT_EQ(kernels("auto"), best);
  EXPECT_EQ(kernels(""), best);
  EXPECT_EQ(kernels("portable"), cuda::KernelSet::portable);
  EXPECT_THROW(kernels("fast"), InvalidArgument);
}

TEST(CudaKernels, of_another_device_are_refused) {
  const Setting kernels("MEDUSA_CUDA_KERNELS", "sm90"), overlap("MEDUSA_CUDA_OVERLAP", "1");
  EXPECT_EQ(cuda::kernel_set_of({"a GPU", 9, 0}), cuda::KernelSet::sm90);
  EXPECT_THROW(cuda::kernel_set_of({"a GPU", 8, 0}), InvalidArgument);
  EXPECT_THROW(cuda::kernel_set_of({"a GPU", 10, 0}), InvalidArgument);
  EXPECT_TRUE(cuda::overlap_wanted({"a GPU", 10, 0}));
  EXPECT_THROW(cuda::overlap_wanted({"a GPU", 8, 9}), InvalidArgument);
}

}  // namespace
}  // namespace medusa
