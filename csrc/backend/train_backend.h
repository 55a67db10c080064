#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "backend/adam_step.h"
#include "medusa/config.h"
#include "medusa/model.h"
#include "tensor/buffer.h"
#include "tensor/tensor.h"

namespace medusa {

/// The right-hand side B (inner, columns) of a product, packed in panels of 16 columns
/// (zero-padded). C is the compute type; `inner` is even for bf16.
struct Panels {
  Buffer storage;
  int64_t inner = 0;
  int64_t columns = 0;

  int64_t count() const { return (columns + 15) / 16; }
};

/// What a row of logits says about its target.
struct TargetScore {
  float log_prob = 0;
  int32_t rank = -1;  // logits before the target's: higher, or equal with a lower index
};

/// One step of AdamW (Loshchilov and Hutter), torch's conventions.
struct AdamW {
  float learning_rate = 0;
  double beta1 = 0.9;
  double beta2 = 0.999;
  float epsilon = 1e-8f;
  float weight_decay = 0;
  float grad_scale = 1;  // gradient clipping
  int64_t step = 1;      // counts from 1
};
AdamStep adam_step(const AdamW& options);

/// The arithmetic of training, beside Backend, which is the arithmetic of inference. C is the
/// compute type. Law: every output element is one chain of operations in a fixed order, so results
/// do not depend on the number of threads. Verbs happen in order, at the latest in wait(): until
/// then the host neither reads nor writes what they use. What they take as spans of indices may
/// change at once; spans of results are filled by wait().
class TrainBackend {
 public:
  virtual ~TrainBackend() = default;
  virtual std::string name() const = 0;
  virtual DType compute_dtype() const = 0;

  // Memory that the host can read and write when no verb is under way.
  virtual Buffer allocate(size_t bytes) = 0;  // zeroed, 64-byte aligned
  virtual void wait() = 0;
  virtual Panels allocate_panels(int64_t inner, int64_t columns) = 0;

  virtual void zero(Tensor x) = 0;
  // Columns first_column .. of out C: the given rows of a matrix of the host, f32 or bf16; rows
  // beyond them become zero.
  virtual void load_rows(Tensor out, int64_t first_column, const HostTensor& from,
                         std::span<const int64_t> rows) = 0;
  virtual void add_columns(Tensor out, Tensor x) = 0;  // f32: out += x's first columns
  // Columns first_column .. of out: the given rows of x, of one type; rows beyond them become zero.
  virtual void gather(Tensor out, int64_t first_column, Tensor x,
                      std::span<const int32_t> rows) = 0;
  // f32: row rows[i] of out (+)= row i of x. No row is named twice.
  virtual void scatter(Tensor out, Tensor x, std::span<const int32_t> rows, bool accumulate) = 0;

  // Products. Matrices of type C whose columns are a multiple of 16.
  virtual void pack_transposed(Panels& b, Tensor w) = 0;  // B = wᵀ, w (columns, inner)
  virtual void pack(Panels& b, Tensor x) = 0;             // B = x, x (inner, columns)
  virtual void transpose(Tensor out, Tensor x) = 0;       // out = xᵀ
  virtual void narrow(Tensor out, Tensor x) = 0;          // out C = x f32
  virtual void gemm(Tensor c, Tensor a, const Panels& b, bool accumulate) = 0;  // c f32 (+)= a · B

  // A ResBlock: out = x + silu(z + bias), of which x's first columns count; z keeps the biased sum.
  // z, dh f32; x, out, dz C.
  virtual void residual_silu(Tensor out, Tensor x, Tensor z, const float* bias) = 0;
  virtual void silu_backward(Tensor dz, float* dbias, Tensor dh, Tensor z) = 0;

  /// logits f32 (rows, 16 · panels), of which `vocab` columns count; they are overwritten.
  /// grad C = scale · (softmax - onehot). Rows with a negative target: gradient and score zero.
  virtual void cross_entropy(Tensor grad, std::span<TargetScore> scores, Tensor logits,
                             int64_t vocab, std::span<const int32_t> targets, float scale) = 0;

  // Waits.
  virtual double squared_norm(std::span<const float> x) = 0;
  /// All of one size, a multiple of 16: weights, gradients, first and second moments.
  virtual void adamw(std::span<float> weights, std::span<const float> grads, std::span<float> mean,
                     std::span<float> square, const AdamW& options) = 0;
};

/// The fastest one this machine runs, or the one MEDUSA_CPU_ISA names.
std::shared_ptr<TrainBackend> make_cpu_train_backend(ComputeType compute_type, int num_threads);

/// On one of the machine's GPUs. Throws DeviceError, with advice, where there is none or this build
/// has none.
std::shared_ptr<TrainBackend> make_cuda_train_backend(ComputeType compute_type, int device);

/// The one that `device` names: auto, cpu, cuda, cuda:N.
std::shared_ptr<TrainBackend> make_train_backend(const std::string& device,
                                                 ComputeType compute_type, int num_threads);

}  // namespace medusa
