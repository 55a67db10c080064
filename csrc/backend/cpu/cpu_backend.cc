#include "backend/cpu/cpu_backend.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstring>

#include "backend/cpu/attention.h"
#include "backend/cpu/commit.h"
#include "backend/cpu/greedy_acceptance.h"
#include "backend/cpu/logprobs.h"
#include "backend/cpu/pack.h"
#include "backend/cpu/packed_rows.h"
#include "backend/cpu/posterior.h"
#include "backend/cpu/products.h"
#include "backend/cpu/sample.h"
#include "backend/cpu/scratch.h"
#include "backend/cpu/segments.h"
#include "base/check.h"
#include "base/thread_pool.h"
#include "tensor/quants.h"

namespace medusa {
namespace cpu {
namespace {

constexpr int64_t kElementsPerThread = 1 << 11;  // of cheap work worth a second thread

static_assert(kTile == kPageSize);

// Puts `values`, in the compute type, behind the first `column` elements of a row.
void append_row(Tensor out, int64_t row, int64_t column, std::span<const float> values) {
  if (out.dtype == DType::f32) {
    std::copy(values.begin(), values.end(), out.row<float>(row) + column);
  } else {
    std::transform(values.begin(), values.end(), out.row<bf16>(row) + column, to_bf16);
  }
}

size_t machine_memory() {
  return static_cast<size_t>(sysconf(_SC_PHYS_PAGES)) * static_cast<size_t>(sysconf(_SC_PAGESIZE));
}

// Rows of `cols` elements that make a thread worthwhile.
int64_t row_grain(int64_t cols) { return std::max<int64_t>(1, kElementsPerThread / cols); }

// The pool and the scratch serve one verb at a time.
class CpuBackend final : public Backend {
 public:
  CpuBackend(const KernelTable& kernels, const LoadOptions& options)
      : kernels_(kernels),
        compute_(options.compute_type == ComputeType::float32 ? DType::f32 : DType::bf16),
        weight_format_(options.weight_format),
        pool_(options.num_threads) {}

  std::string name() const override {
    return text("cpu (", kernels_.name, ", ", pool_.num_threads(),
                pool_.num_threads() == 1 ? " thread)" : " threads)");
  }
  int num_threads() const override { return pool_.num_threads(); }
  DType compute_dtype() const override { return compute_; }
  bool supports_cache(DType dtype) const override {
    return dtype == compute_ || (dtype == DType::i8 && compute_ == DType::bf16);
  }

  Buffer allocate(size_t bytes) override { return page_buffer(bytes); }
  size_t default_cache_bytes() const override { return machine_memory() / 4; }
  void upload(Tensor out, const void* from) override { std::memcpy(out.data, from, out.bytes()); }
  const void* download(Tensor x) override { return x.data; }

  Weight prepare_weight(const WeightSource& source) override {
    return pack_weight(source, compute_, weight_format_, pool_);
  }

  void replay(FunctionRef<void()> body) override { body(); }
  void stamp(Tensor out) override {
    const auto now = std::chrono::steady_clock::now().time_since_epoch();
    const int64_t time = std::chrono::duration_cast<std::chrono::nanoseconds>(now).count();
    std::memcpy(out.data, &time, sizeof time);
  }

  void embed(Tensor out, const Weight& table, std::span<const int32_t> ids) override {
    pool_.parallel_for(out.rows, row_grain(out.cols), [&](int64_t first, int64_t last, int) {
      for (int64_t r = first; r < last; ++r) {
        read_row(out.row<float>(r), table, ids[static_cast<size_t>(r)]);
      }
    });
  }

  void append_embedding(Tensor out, Tensor x, const Weight& table, Tensor ids) override {
    const int64_t width = table.in_features;
    auto* wide = static_cast<float*>(scratch_.reserve(static_cast<size_t>(width) * sizeof(float)));
    for (int64_t r = 0; r < out.rows; ++r) {
      std::memcpy(out.row<char>(r), x.row<char>(r), x.row_bytes());
      read_row(wide, table, ids.row<int32_t>(0)[r]);
      append_row(out, r, x.cols, {wide, static_cast<size_t>(width)});
    }
  }

  void rms_norm(Tensor out, Tensor x, const float* weight, float eps) override {
    const RmsNormArgs args{x.row<float>(0), weight, out.data, x.cols, eps};
    const auto norm = kernels_.rms_norm[element_type(out.dtype)];
    pool_.parallel_for(x.rows, row_grain(x.cols),
                       [&](int64_t first, int64_t last, int) { norm(args, first, last); });
  }

  void linear(Tensor out, Tensor x, const Weight& weight, Epilogue epilogue) override {
    products_.linear(out, x, weight, epilogue);
  }

  void rope(const QkvSplit& split, Tensor qkv, std::span<const int32_t> positions,
            const Rope& rope) override {
    const RopeArgs args{
        qkv.row<float>(0), split.q.row<float>(0), split.keys.data, split.values.data,
        split.q_norm,      split.k_norm,          split.norm_eps,  rope.cos,
        rope.sin,          positions.data(),      split.num_heads, split.num_kv_heads,
        split.head_dim,    rope.interleaved};
    const auto turn = kernels_.rope[cache_type(split.keys.dtype)];
    pool_.parallel_for(qkv.rows, row_grain(qkv.cols),
                       [&](int64_t first, int64_t last, int) { turn(args, first, last); });
  }

  void tree_attention(Tensor out, const AttentionInputs& in, const RowBatch& batch) override {
    cpu::tree_attention(kernels_, pool_, scratch_, out, in, batch);
  }

  void gather_rows(Tensor out, Tensor x, Tensor rows) override {
    for (int64_t i = 0; i < rows.cols; ++i) {
      std::memcpy(out.row<char>(i), x.row<char>(rows.row<int32_t>(0)[i]), x.row_bytes());
    }
  }

  void linear_top_k(Tensor values, Tensor ids, Tensor x, std::span<const Weight> weights) override {
    const int64_t share = x.rows / static_cast<int64_t>(weights.size());
    int64_t first = 0;
    for (const Weight& weight : weights) {
      products_.top_k(values.slice(first, share), ids.slice(first, share), x.slice(first, share),
                      weight);
      first += share;
    }
  }

  void sample(std::span<int32_t> ids, Tensor logits, std::span<const SampleRow> rows) override {
    for_each_row(logits, rows.size(), [&](size_t i, const SampleScratch& scratch) {
      ids[i] = sample_row(kernels_, rows[i], logits.row<float>(rows[i].row), logits.cols, scratch);
    });
  }

  void logprobs(Tensor logits, std::span<const LogprobRow> rows) override {
    for_each_row(logits, rows.size(), [&](size_t i, const SampleScratch& scratch) {
      token_logprobs(kernels_, rows[i], logits.row<float>(rows[i].row), logits.cols, scratch);
    });
  }

  void posterior(Tensor logits, std::span<const PosteriorRow> rows) override {
    for_each_row(logits, rows.size(), [&](size_t i, const SampleScratch& scratch) {
      const auto* row = logits.row<float>(rows[i].draw.row);
      posterior_row(kernels_, rows[i], row, logits.cols, scratch);
    });
  }

  bool accept(const Decisions& out, const LogitsProduct& product, const RowBatch& batch,
              std::span<const AcceptSequence> sequences, const TypicalRule&) override {
    return greedy_.accept(products_, out, product, batch, sequences);
  }

  void commit(const KvLayout& cache, Tensor keys, Tensor values, std::span<const CommitRow> rows,
              Tensor kept) override {
    commit_rows(kernels_, pool_, kElementsPerThread, cache, keys, values, rows, kept);
  }

 private:
  // body(i, scratch) for each of `count` rows of logits.
  template <class Body>
  void for_each_row(Tensor logits, size_t count, const Body& body) {
    const size_t bytes = SampleScratch(Carver(nullptr), logits.cols).bytes;
    auto* memory =
        static_cast<char*>(scratch_.reserve(bytes * static_cast<size_t>(pool_.num_threads())));
    pool_.parallel_for(static_cast<int64_t>(count), row_grain(logits.cols),
                       [&](int64_t first, int64_t last, int thread) {
                         const Carver carver(memory + bytes * static_cast<size_t>(thread));
                         const SampleScratch scratch(carver, logits.cols);
                         for (int64_t i = first; i < last; ++i)
                           body(static_cast<size_t>(i), scratch);
                       });
  }

  const KernelTable& kernels_;
  const DType compute_;
  const WeightFormat weight_format_;
  ThreadPool pool_;
  Scratch scratch_;  // of the verb that runs
  Products products_{kernels_, pool_};
  GreedyAcceptance greedy_;
};

}  // namespace
}  // namespace cpu

std::shared_ptr<Backend> make_cpu_backend(const cpu::KernelTable& kernels,
                                          const LoadOptions& options) {
  return std::make_shared<cpu::CpuBackend>(kernels, options);
}

}  // namespace medusa
