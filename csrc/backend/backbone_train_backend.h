#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "backend/backend.h"
#include "backend/train_backend.h"

namespace medusa {

/// A weight (out_features, in_features) that is not trained, row-major in the format it is stored
/// in, or as BackboneTrainBackend::hold() made it. Views memory that somebody else owns, often a
/// mapped file.
struct FrozenMatrix {
  const void* data = nullptr;
  DType dtype = DType::f32;
  int64_t out_features = 0;
  int64_t in_features = 0;
};

/// Noise of one dropout: a function of these, the row and the column, so that backward draws it
/// again.
struct Dropout {
  float probability = 0;
  uint64_t seed = 0;
  uint32_t step = 0;
  uint32_t site = 0;       // which of a step's dropouts
  uint32_t first_row = 0;  // number of the first row
};

/// Documents that are packed into one sequence of rows; a row attends to its own document only.
struct Documents {
  std::span<const int32_t> starts;     // first row of each, and at the end the number of rows
  std::span<const int32_t> positions;  // of each row in its document

  int64_t num_rows() const { return starts.back(); }
};

/// Heads' shape of one attention. q f32 (rows, heads · head_dim), k and v f32 (rows, kv heads ·
/// head_dim), rotated.
struct AttentionShape {
  int num_heads = 0;
  int num_kv_heads = 0;
  int head_dim = 0;
  int sliding_window = 0;  // 0: all of the document
  float scale = 0;         // of q · k
};

/// A backbone's arithmetic while it is trained, beside that of heads. Rows are a multiple of 32,
/// columns of 32; activations that enter a product have the compute type C, all others are f32.
/// The law is TrainBackend's.
class BackboneTrainBackend : public TrainBackend {
 public:
  /// A frozen weight as verbs take it, valid as long as both the back end and `w` are.
  virtual FrozenMatrix hold(const FrozenMatrix& w) = 0;
  virtual void embed(Tensor out, const FrozenMatrix& table, std::span<const int32_t> ids) = 0;

  // y f32 (rows, padded out) (+)= x C · Wᵀ; columns beyond out_features become zero.
  virtual void linear(Tensor y, Tensor x, const FrozenMatrix& w, bool accumulate) = 0;
  // dx f32 (rows, in) (+)= dy C (rows, padded out) · W.
  virtual void linear_backward(Tensor dx, Tensor dy, const FrozenMatrix& w, bool accumulate) = 0;
  // c f32 (M, columns) (+)= aᵀ · B, a C (inner, M or padded M).
  virtual void outer(Tensor c, Tensor a, const Panels& b, bool accumulate) = 0;

  // out C or f32. Heads' norms see (rows · heads, head_dim).
  virtual void rms_norm(Tensor out, Tensor x, const float* weight, float eps) = 0;
  virtual void rms_norm_backward(Tensor dx, Tensor dy, Tensor x, const float* weight, float eps,
                                 bool accumulate) = 0;
  // x f32 (rows, heads · head_dim), in place; `inverse` turns back, which is also the gradient.
  virtual void rotate(Tensor x, std::span<const int32_t> positions, const Rope& rope,
                      int64_t head_dim, bool inverse) = 0;
  // out C (rows, heads · head_dim). Nothing but the output is kept: memory is linear in rows.
  virtual void attention(Tensor out, Tensor q, Tensor k, Tensor v, const Documents& documents,
                         const AttentionShape& shape) = 0;
  // dq, dk, dv f32 as q, k, v; dout f32.
  virtual void attention_backward(Tensor dq, Tensor dk, Tensor dv, Tensor dout, Tensor q, Tensor k,
                                  Tensor v, const Documents& documents,
                                  const AttentionShape& shape) = 0;
  virtual void silu_mul(Tensor out, Tensor gate, Tensor up) = 0;  // out C
  // dgate, dup C; dy f32.
  virtual void silu_mul_backward(Tensor dgate, Tensor dup, Tensor dy, Tensor gate, Tensor up) = 0;

  virtual void copy(Tensor out, Tensor x) = 0;  // of one type and shape

  virtual void add(Tensor out, Tensor x) = 0;                            // f32
  virtual void add_bias(Tensor y, const float* bias) = 0;                // to every row
  virtual void scale(Tensor out, Tensor x, float factor) = 0;            // out C = factor · x f32
  virtual void dropout(Tensor out, Tensor x, const Dropout& noise) = 0;  // C
  virtual void add_dropped(Tensor out, Tensor x, const Dropout& noise) = 0;  // out f32 += of x f32

  /// Of each row with weight w: grad C = w · (p_student - p_teacher), divergences KL(teacher ||
  /// student). Logits f32 are overwritten; `vocab` columns count. Weight 0: both are zero.
  virtual void divergence(Tensor grad, std::span<double> divergences, Tensor student,
                          Tensor teacher, int64_t vocab, std::span<const float> weights) = 0;

  // Gradients of a backbone's own weights, f32, to which every verb adds; those of matrices are
  // outer products. Row ids[r] of dtable (vocab, columns) += the columns of row r of dx f32, from
  // first_column on.
  virtual void embed_backward(Tensor dtable, Tensor dx, int64_t first_column,
                              std::span<const int32_t> ids) = 0;
  virtual void rms_norm_weight(float* dweight, Tensor dy, Tensor x, float eps) = 0;
  virtual void column_sums(float* sums, Tensor x) = 0;  // x C: a bias
};

/// The fastest one this machine runs, or the one MEDUSA_CPU_ISA names.
std::shared_ptr<BackboneTrainBackend> make_cpu_backbone_train_backend(ComputeType compute_type,
                                                                      int num_threads);

/// As make_cuda_train_backend() and make_train_backend().
std::shared_ptr<BackboneTrainBackend> make_cuda_backbone_train_backend(ComputeType compute_type,
                                                                       int device);
std::shared_ptr<BackboneTrainBackend> make_backbone_train_backend(const std::string& device,
                                                                  ComputeType compute_type,
                                                                  int num_threads);

}  // namespace medusa
