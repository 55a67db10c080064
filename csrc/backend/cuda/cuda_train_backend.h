#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "backend/cuda/kernels.h"
#include "backend/cuda/queue.h"
#include "backend/cuda/transfer.h"
#include "backend/train_backend.h"

namespace medusa::cuda {

/// Queues kernels on a stream of its own. B of a product is row-major here: (inner, columns).
class CudaTrainBackend : public TrainBackend {
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

  const DType dtype_;
  const int device_;
  Queue queue_;
  Arrivals arrivals_;       // results that wait() brings
  Mirror targets_;          // of cross_entropy()
  std::vector<char> rows_;  // of the host, gathered
};

}  // namespace medusa::cuda
