// Where a forward pass spends its time: every verb of the back end, for several row counts, on a
// random model of SmolLM2-135M's shapes.
// usage: step_profile [context] [threads] [format, as Q4_1] [cache: auto or int8]
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <numeric>
#include <string>
#include <vector>

#include "model/kv_cache.h"
#include "model/llama.h"
#include "model/rope_table.h"
#include "model/workspace.h"
#include "random_model.h"

namespace medusa {
namespace {

using Clock = std::chrono::steady_clock;

/// Passes every verb on and adds up the time it takes.
class ProfilingBackend : public Backend {
 public:
  explicit ProfilingBackend(std::shared_ptr<Backend> inner) : inner_(std::move(inner)) {}
  std::map<std::string, double> seconds;

  std::string name() const override { return inner_->name(); }
  int num_threads() const override { return inner_->num_threads(); }
  DType compute_dtype() const override { return inner_->compute_dtype(); }
  bool supports_cache(DType dtype) const override { return inner_->supports_cache(dtype); }
  Buffer allocate(size_t bytes) override { return inner_->allocate(bytes); }
  size_t default_cache_bytes() const override { return inner_->default_cache_bytes(); }
  void upload(Tensor out, const void* from) override { inner_->upload(out, from); }
  const void* download(Tensor x) override { return inner_->download(x); }
  Weight prepare_weight(const WeightSource& source) override {
    return inner_->prepare_weight(source);
  }
  void embed(Tensor out, const Weight& table, std::span<const int32_t> ids) override {
    timed("embed", [&] { inner_->embed(out, table, ids); });
  }
  void rms_norm(Tensor out, Tensor x, const float* weight, float eps) override {
    timed("rms_norm", [&] { inner_->rms_norm(out, x, weight, eps); });
  }
  void linear(Tensor out, Tensor x, const Weight& weight, Epilogue epilogue) override {
    const std::string shape =
        std::to_string(weight.in_features) + "x" + std::to_string(weight.out_features);
    timed("linear " + shape, [&] { inner_->linear(out, x, weight, epilogue); });
  }
  void rope(const QkvSplit& split, Tensor qkv, std::span<const int32_t> positions,
            const Rope& table) override {
    timed("rope", [&] { inner_->rope(split, qkv, positions, table); });
  }
  void tree_attention(Tensor out, const AttentionInputs& in, const RowBatch& batch) override {
    timed("tree_attention", [&] { inner_->tree_attention(out, in, batch); });
  }
  void replay(FunctionRef<void()> body) override { inner_->replay(body); }
  void stamp(Tensor out) override { inner_->stamp(out); }
  void gather_rows(Tensor out, Tensor x, Tensor rows) override {
    timed("gather_rows", [&] { inner_->gather_rows(out, x, rows); });
  }
  void linear_top_k(Tensor values, Tensor ids, Tensor x, std::span<const Weight> weights) override {
    timed("linear_top_k", [&] { inner_->linear_top_k(values, ids, x, weights); });
  }
  void sample(std::span<int32_t> ids, Tensor logits, std::span<const SampleRow> rows) override {
    timed("sample", [&] { inner_->sample(ids, logits, rows); });
  }
  void append_embedding(Tensor out, Tensor x, const Weight& table, Tensor ids) override {
    timed("append_embedding", [&] { inner_->append_embedding(out, x, table, ids); });
  }
  void logprobs(Tensor logits, std::span<const LogprobRow> rows) override {
    timed("logprobs", [&] { inner_->logprobs(logits, rows); });
  }
  void posterior(Tensor logits, std::span<const PosteriorRow> rows) override {
    timed("posterior", [&] { inner_->posterior(logits, rows); });
  }
  bool accept(const Decisions& out, const LogitsProduct& product, const RowBatch& batch,
              std::span<const AcceptSequence> sequences, const TypicalRule& rule) override {
    return inner_->accept(out, product, batch, sequences, rule);
  }
  void commit(const KvLayout& cache, Tensor keys, Tensor values, std::span<const CommitRow> rows,
              Tensor kept) override {
    timed("commit", [&] { inner_->commit(cache, keys, values, rows, kept); });
  }

 private:
  template <class Verb>
  void timed(const std::string& verb, const Verb& run) {
    const auto start = Clock::now();
    run();
    seconds[verb] += std::chrono::duration<double>(Clock::now() - start).count();
  }
  std::shared_ptr<Backend> inner_;
};

ModelConfig smollm2() {
  ModelConfig config;
  config.vocab_size = 49152;
  config.hidden_size = 576;
  config.intermediate_size = 1536;
  config.num_hidden_layers = 30;
  config.num_attention_heads = 9;
  config.num_key_value_heads = 3;
  config.head_dim = 64;
  config.max_position_embeddings = 8192;
  config.rope_interleaved = true;
  config.tie_word_embeddings = true;
  return config;
}

void profile(ProfilingBackend& backend, const Llama& llama, DType type, int rows, int context) {
  Workspace workspace(backend, llama.config(), type, rows, rows);
  KvCache cache(backend, llama.config(), type, 1, KvCache::pages_for(context), context);
  cache.reserve(0, context);
  const RopeTable rope(backend, llama.config(), context + 64);
  const RowBatch batch = benchmark::tree_batch(rows, context, cache.pages(0));
  std::vector<int32_t> all(rows), drawn(1);
  std::iota(all.begin(), all.end(), 0);
  const std::vector<SampleRow> draw(1);
  std::vector<double> times;
  std::map<std::string, std::vector<double>> by_verb;
  for (int i = 0; i < 25; ++i) {
    backend.seconds.clear();
    const auto start = Clock::now();
    llama.forward(backend, batch, cache.layout(), rope.view(), workspace);
    llama.logits(backend, all, rows, workspace);
    backend.sample(drawn, workspace.logits(rows), draw);
    times.push_back(std::chrono::duration<double>(Clock::now() - start).count());
    for (const auto& [verb, seconds] : backend.seconds) by_verb[verb].push_back(seconds);
  }
  const auto median = [](std::vector<double>& v) {
    std::sort(v.begin(), v.end());
    return v[v.size() / 2] * 1e3;
  };
  std::printf("rows %3d: %7.3f ms", rows, median(times));
  for (auto& [verb, seconds] : by_verb) std::printf(" | %s %.3f", verb.c_str(), median(seconds));
  std::printf("\n");
}

}  // namespace
}  // namespace medusa

int main(int argc, char** argv) {
  using namespace medusa;
  const int context = argc > 1 ? std::atoi(argv[1]) : 200;
  const int threads = argc > 2 ? std::atoi(argv[2]) : 0;
  ProfilingBackend backend(make_cpu_backend({.num_threads = threads}));
  const ModelConfig config = smollm2();
  const benchmark::RandomModel weights(config, parse_dtype(argc > 3 ? argv[3] : "BF16"));
  const Llama llama(backend, config, weights.tensors);
  const bool codes = argc > 4 && std::string(argv[4]) == "int8";
  const DType type = KvCache::dtype_of(backend, codes ? KvCacheType::int8 : KvCacheType::compute);
  const double cached =
      static_cast<double>(KvCache::page_bytes(config, type)) / kPageSize * context;
  std::printf("%s, context %d, %.1f MB of weights and %.1f MB of cache a step; medians of 25, ms\n",
              backend.name().c_str(), context, llama.step_bytes() / 1e6, cached / 1e6);
  for (const int rows : {1, 4, 8, 12, 16, 24, 32, 48, 64})
    profile(backend, llama, type, rows, context);
}
