#include <gtest/gtest.h>

#include <map>

#include "medusa/engine.h"
#include "model/kv_cache.h"
#include "model/model_impl.h"
#include "tiny_model.h"

namespace medusa {
namespace {

using testing::random_prompt;
using testing::TinyModel;
using Ids = std::vector<int32_t>;

constexpr int kOperations = 10000;
constexpr int kOperationsPerEngine = 500;

/// Random requests on one engine after another; every answer is held against plain decoding.
class Fuzzer {
 public:
  Fuzzer() : model_(tiny_.load()), heads_(tiny_.random_heads(model_, 3)) {
    tiny_prompts();
    for (int i = 0; i < kOperations; ++i) {
      if (i % kOperationsPerEngine == 0) {
        finish();
        start();
      }
      operate();
    }
    finish();
  }

  int64_t finished_ = 0, cancelled_ = 0, preemptions_ = 0, cached_ = 0, accepted_ = 0;

 private:
  struct Request {
    size_t prompt;
    SamplingParams params;
    Ids answer;
  };

  // Few prompts, half of them with a common beginning, so that twins are computed once.
  void tiny_prompts() {
    const Ids common = random_prompt(random_, 140, 101);
    for (const int size : {1, 30, 63, 64, 65, 100, 128, 140}) {
      prompts_.emplace_back(common.begin(), common.begin() + size);
      prompts_.push_back(random_prompt(random_, size, 101));
    }
  }

  int pick(int from, int to) { return from + static_cast<int>(random_() % (to - from + 1)); }

  EngineOptions options(const Tree& tree) {
    EngineOptions options{.max_num_seqs = pick(1, 6), .max_model_len = 256};
    options.adaptive = pick(0, 1) == 1;
    if (options.adaptive) options.step_seconds = {1, 1, 1.1f, 1.2f, 1.5f, 2, 3};
    const int least = options.max_num_seqs * (options.adaptive ? 1 : tree.size());
    options.max_num_batched_tokens = least + pick(0, 60);
    const size_t page =
        KvCache::page_bytes(model_.config(), model_.impl()->backend->compute_dtype());
    options.kv_cache_memory = page * pick(4, 12);
    options.enable_prefix_caching = pick(0, 3) > 0;
    return options;
  }

  void start() {
    const Tree trees[] = {Tree::root_only(), Tree::chain(3), Tree({{0}, {1}, {0, 0}, {2}, {1, 0}})};
    const Tree& tree = trees[pick(0, 2)];
    engine_.emplace(model_, heads_, tree, options(tree));
  }

  void operate() {
    const int choice = pick(0, 99);
    if (choice < 12) return submit();
    if (choice < 16) return cancel();
    step();
  }

  void submit() {
    if (requests_.size() > 10) return step();
    Request request{.prompt = random_() % prompts_.size(), .params = {}, .answer = {}};
    request.params.max_tokens = pick(1, 2) == 1 ? pick(1, 20) : 110;
    request.params.temperature = pick(0, 1) == 0 ? 0.0f : 0.9f;
    request.params.seed = 5;
    request.params.speculative = pick(0, 4) > 0;
    requests_.emplace(engine_->submit(prompts_[request.prompt], request.params), request);
  }

  void cancel() {
    if (requests_.empty()) return;
    const auto victim = std::next(requests_.begin(), random_() % requests_.size());
    engine_->cancel(victim->first);
    drop(victim->first);
    ++cancelled_;
  }

  void step() {
    bool moved = !engine_->has_unfinished();
    const auto outputs = engine_->step();
    for (const StepOutput& output : outputs) {
      moved = true;
      Request& request = requests_.at(output.request_id);
      request.answer.insert(request.answer.end(), output.tokens.begin(), output.tokens.end());
      if (output.finish_reason != FinishReason::none) finished(output.request_id);
    }
    // Prompts of at most 256 tokens, a row a step in the worst case.
    stalled_ = moved ? 0 : stalled_ + 1;
    ASSERT_LE(stalled_, 256);
  }

  void finished(int64_t id) {
    const Request& request = requests_.at(id);
    ASSERT_EQ(request.answer, twin(request)) << "prompt " << request.prompt;
    ++finished_;
    drop(id);
  }

  // The first tokens of the longest answer plain decoding gives, computed alone.
  Ids twin(const Request& request) {
    const bool greedy = request.params.temperature == 0;
    Ids& whole = twins_[{request.prompt, greedy}];
    if (whole.empty()) {
      SamplingParams params = request.params;
      params.max_tokens = 110;
      Engine plain(model_, {}, Tree::root_only(), {.max_num_seqs = 1});
      plain.submit(prompts_[request.prompt], params);
      for (const auto& [id, answer] : testing::run(plain)) whole = answer;
    }
    return {whole.begin(), whole.begin() + request.params.max_tokens};
  }

  void drop(int64_t id) {
    const Metrics metrics = engine_->metrics(id);
    preemptions_ += metrics.num_preemptions;
    cached_ += metrics.num_cached_tokens;
    accepted_ += metrics.num_accepted_tokens;
    engine_->forget(id);
    requests_.erase(id);
  }

  void finish() {
    if (!engine_) return;
    while (engine_->has_unfinished() && !::testing::Test::HasFatalFailure()) step();
    EXPECT_TRUE(requests_.empty());
    EXPECT_EQ(engine_->num_free_pages(), engine_->num_pages());
  }

  std::mt19937 random_{20};
  TinyModel tiny_;
  Model model_;
  Heads heads_;
  std::vector<Ids> prompts_;
  std::map<std::pair<size_t, bool>, Ids> twins_;
  std::optional<Engine> engine_;
  std::map<int64_t, Request> requests_;
  int stalled_ = 0;
};

TEST(SchedulerFuzz, ten_thousand_operations_leak_nothing_stall_nothing_change_nothing) {
  const Fuzzer fuzzer;
  EXPECT_GT(fuzzer.finished_, 300);
  EXPECT_GT(fuzzer.cancelled_, 50);
  EXPECT_GT(fuzzer.preemptions_, 50);
  EXPECT_GT(fuzzer.cached_, 1000);
  EXPECT_GT(fuzzer.accepted_, 50);
}

}  // namespace
}  // namespace medusa
