#pragma once

#include <algorithm>
#include <atomic>
#include <memory>
#include <span>

#include "backend/backbone_train_backend.h"
#include "backend/cpu/isa.h"
#include "backend/cpu/train_kernels.h"
#include "base/thread_pool.h"

namespace medusa {
namespace cpu {

const TrainKernels& train_kernels(Isa isa);

/// Verbs of heads are in cpu_train_backend.cc, a backbone's in cpu_backbone_verbs.cc,
/// cpu_train_attention.cc and cpu_weight_gradients.cc.
class CpuTrainBackend final : public BackboneTrainBackend {
 public:
  CpuTrainBackend(const TrainKernels& kernels, ComputeType type, int num_threads);

  std::string name() const override;
  DType compute_dtype() const override { return dtype_; }
  Buffer allocate(size_t bytes) override;
  Panels allocate_panels(int64_t inner, int64_t columns) override;
  void wait() override {}
  void zero(Tensor x) override;
  void load_rows(Tensor out, int64_t first_column, const HostTensor& from,
                 std::span<const int64_t> rows) override;
  void add_columns(Tensor out, Tensor x) override;
  void pack_transposed(Panels& b, Tensor w) override;
  void pack(Panels& b, Tensor x) override;
  void transpose(Tensor out, Tensor x) override;
  void narrow(Tensor out, Tensor x) override;
  void gemm(Tensor c, Tensor a, const Panels& b, bool accumulate) override;
  void residual_silu(Tensor out, Tensor x, Tensor z, const float* bias) override;
  void silu_backward(Tensor dz, float* dbias, Tensor dh, Tensor z) override;
  void cross_entropy(Tensor grad, std::span<TargetScore> scores, Tensor logits, int64_t vocab,
                     std::span<const int32_t> targets, float scale) override;
  double squared_norm(std::span<const float> x) override;
  void adamw(std::span<float> weights, std::span<const float> grads, std::span<float> mean,
             std::span<float> square, const AdamW& options) override;

  FrozenMatrix hold(const FrozenMatrix& w) override { return w; }
  void embed(Tensor out, const FrozenMatrix& table, std::span<const int32_t> ids) override;
  void linear(Tensor y, Tensor x, const FrozenMatrix& w, bool accumulate) override;
  void linear_backward(Tensor dx, Tensor dy, const FrozenMatrix& w, bool accumulate) override;
  void outer(Tensor c, Tensor a, const Panels& b, bool accumulate) override;
  void rms_norm(Tensor out, Tensor x, const float* weight, float eps) override;
  void rms_norm_backward(Tensor dx, Tensor dy, Tensor x, const float* weight, float eps,
                         bool accumulate) override;
  void rotate(Tensor x, std::span<const int32_t> positions, const Rope& rope, int64_t head_dim,
              bool inverse) override;
  void attention(Tensor out, Tensor q, Tensor k, Tensor v, const Documents& documents,
                 const AttentionShape& shape) override;
  void attention_backward(Tensor dq, Tensor dk, Tensor dv, Tensor dout, Tensor q, Tensor k,
                          Tensor v, const Documents& documents,
                          const AttentionShape& shape) override;
  void silu_mul(Tensor out, Tensor gate, Tensor up) override;
  void silu_mul_backward(Tensor dgate, Tensor dup, Tensor dy, Tensor gate, Tensor up) override;
  void copy(Tensor out, Tensor x) override;
  void gather(Tensor out, int64_t first_column, Tensor x, std::span<const int32_t> rows) override;
  void scatter(Tensor out, Tensor x, std::span<const int32_t> rows, bool accumulate) override;
  void add(Tensor out, Tensor x) override;
  void add_bias(Tensor y, const float* bias) override;
  void scale(Tensor out, Tensor x, float factor) override;
  void dropout(Tensor out, Tensor x, const Dropout& noise) override;
  void add_dropped(Tensor out, Tensor x, const Dropout& noise) override;
  void divergence(Tensor grad, std::span<double> divergences, Tensor student, Tensor teacher,
                  int64_t vocab, std::span<const float> weights) override;

  void embed_backward(Tensor dtable, Tensor dx, int64_t first_column,
                      std::span<const int32_t> ids) override;
  void rms_norm_weight(float* dweight, Tensor dy, Tensor x, float eps) override;
  void column_sums(float* sums, Tensor x) override;

 private:
  static constexpr int64_t kElements = 1 << 13;  // floats of one element-wise task

  bool bf16() const { return dtype_ == DType::bf16; }
  int64_t lanes(int64_t elements) const { return bf16() ? elements / 2 : elements; }
  uint32_t* panel(const Panels& b, int64_t p) const;
  void load_row(void* out, const HostTensor& from, int64_t row) const;
  TargetScore row_cross_entropy(void* grad, float* logits, int64_t padded, int64_t vocab,
                                int32_t target, float scale) const;
  /// Part of a frozen matrix in C, row-major.
  struct Slice {
    const void* data;
    int64_t stride;  // elements
  };
  Slice widened(const FrozenMatrix& w, int64_t row, int64_t rows, int64_t column, int64_t columns,
                void* scratch) const;
  struct HeadScratch;
  DropoutRow dropout_row(const Dropout& noise, int64_t row) const;

  /// Runs task(0 .. count - 1), each once, on whichever thread is free.
  template <class Task>
  void parallel(int64_t count, const Task& task) {
    parallel_with_thread(count, [&](int64_t i, int) { task(i); });
  }

  /// task(i, thread).
  template <class Task>
  void parallel_with_thread(int64_t count, const Task& task) {
    std::atomic<int64_t> next{0};
    pool_.run([&](int thread) {
      for (int64_t i = next++; i < count; i = next++) task(i, thread);
    });
  }

  template <class Task>
  void elements(int64_t count, const Task& task) {
    parallel((count + kElements - 1) / kElements, [&](int64_t block) {
      task(block * kElements, std::min(kElements, count - block * kElements));
    });
  }

  /// body(row) for every row.
  template <class Body>
  void each_row(int64_t rows, const Body& body) {
    constexpr int64_t kRows = 16;  // of one task
    parallel((rows + kRows - 1) / kRows, [&](int64_t block) {
      for (int64_t r = block * kRows; r < std::min(rows, (block + 1) * kRows); ++r) body(r);
    });
  }

  /// Memory of one thread for the verb that runs, which reserved it before its parallel work.
  char* scratch(int thread) const {
    return static_cast<char*>(scratch_.data()) + static_cast<size_t>(thread) * scratch_bytes_;
  }
  void reserve_scratch(size_t bytes_per_thread);

  const TrainKernels& kernels_;
  int type_;
  DType dtype_;
  ThreadPool pool_;
  Buffer scratch_;
  size_t scratch_bytes_ = 0;  // of each thread
};

}  // namespace cpu

/// The CPU back end of training with a given table of kernels: one that this machine can run.
std::shared_ptr<BackboneTrainBackend> make_cpu_train_backend(const cpu::TrainKernels& kernels,
                                                             ComputeType compute_type,
                                                             int num_threads);

}  // namespace medusa
