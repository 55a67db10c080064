#pragma once

#include <chrono>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <utility>

#include "backend/backend.h"

namespace medusa::benchmark {

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
    bool decided = false;
    timed("accept", [&] { decided = inner_->accept(out, product, batch, sequences, rule); });
    return decided;
  }
  void commit(const KvLayout& cache, Tensor keys, Tensor values, std::span<const CommitRow> rows,
              Tensor kept) override {
    timed("commit", [&] { inner_->commit(cache, keys, values, rows, kept); });
  }

 private:
  template <class Verb>
  void timed(const std::string& verb, const Verb& run) {
    const auto start = std::chrono::steady_clock::now();
    run();
    seconds[verb] +=
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  }
  std::shared_ptr<Backend> inner_;
};

}  // namespace medusa::benchmark
