#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "backend/backbone_train_backend.h"
#include "backend/cuda/backbone_kernels.h"
#include "backend/cuda/queue.h"
#include "backend/cuda/transfer.h"
#include "base/thread_pool.h"

namespace medusa::cuda {

/// Queues kernels on a stream of its own. B of a product is row-major here: (inner, columns). Verbs
/// of heads are in cuda_train_backend.cc, a backbone's in cuda_backbone_verbs.cc, of its own
/// weights in cuda_weight_gradients.cc.
class CudaTrainBackend final : public BackboneTrainBackend {
 public:
  CudaTrainBackend(ComputeType type, int device);

  std::string name() const override;
  DType compute_dtype() const override { return dtype_; }
  Buffer allocate(size_t bytes) override;
  void wait() override;
  Panels allocate_panels(int64_t inner, int64_t columns) override;
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

  FrozenMatrix hold(const FrozenMatrix& w) override;
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
  /// For the thread that calls.
  Queue& bound() {
    use_device(device_);
    return queue_;
  }
  const Stream& stream() { return bound().stream; }
  Element element() const { return dtype_ == DType::f32 ? Element::f32 : Element::bf16; }
  static int64_t stride(const Panels& b) { return b.count() * 16; }
  void load_piece(Tensor out, int64_t first_column, const HostTensor& from,
                  std::span<const int64_t> rows);
  void hold_rows(Queue& queue, void* to, const FrozenMatrix& w, int64_t row, int64_t rows);
  TrainAttentionArgs with_tiles(TrainAttentionArgs args, const Documents& documents);

  const DType dtype_;
  const int device_;
  Queue queue_;
  Arrivals arrivals_;       // results that wait() brings
  Mirror targets_;          // of cross_entropy()
  std::vector<char> rows_;  // of the host, gathered

  std::vector<Buffer> held_;    // frozen weights
  std::vector<float> widened_;  // some rows of one
  ThreadPool packers_{0};       // that widen them
  Mirror indices_, positions_, tiles_, weights_;
};

}  // namespace medusa::cuda
