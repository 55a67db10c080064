#pragma once

#include "backend/cuda/kernels.h"

// Launchers of a backbone's verbs while it is trained (backend/backbone_train_backend.h). All
// pointers are to memory of the device; C is `element`, f32 or bf16.
namespace medusa::cuda {

/// As RmsNormArgs; dx f32 (rows, cols) may be dy.
struct RmsNormBackwardArgs {
  float* dx;
  const float* dy;
  const float* x;
  const float* weight;  // (cols)
  int cols;
  float eps;
  bool accumulate;
  bool operator==(const RmsNormBackwardArgs&) const = default;
};
void rms_norm_backward(const Stream& stream, const RmsNormBackwardArgs& args, int64_t rows);

/// x f32 (rows, cols) in place, cols a multiple of head_dim; `turn` is 1, or -1 to undo it.
struct RotateArgs {
  float* x;
  const int32_t* positions;  // (rows)
  const float* cos;          // (positions, head_dim / 2)
  const float* sin;
  int cols, head_dim;
  bool interleaved;
  float turn;
  bool operator==(const RotateArgs&) const = default;
};
void rotate(const Stream& stream, const RotateArgs& args, int64_t rows);

// Element by element, `count` of them.
void silu_mul(const Stream& stream, Element element, void* out, const float* gate, const float* up,
              int64_t count);
void silu_mul_backward(const Stream& stream, Element element, void* dgate, void* dup,
                       const float* dy, const float* gate, const float* up, int64_t count);
void add(const Stream& stream, float* out, const float* x, int64_t count);
/// y f32 (…, cols) += bias (cols).
void add_bias(const Stream& stream, float* y, const float* bias, int cols, int64_t count);
/// out C = factor · x f32.
void scale(const Stream& stream, Element element, void* out, const float* x, float factor,
           int64_t count);
/// out f32 (rows, width) = rows of table C.
void embed_rows(const Stream& stream, Element element, float* out, const void* table,
                const int32_t* ids, int width, int64_t rows);

/// Some columns of `out` = rows of x; rows beyond `count` become zero. Bytes are multiples of 16.
struct GatherColumnsArgs {
  void* out;  // the first of the columns
  const void* x;
  const int32_t* rows;  // (count)
  int64_t count;
  int64_t out_stride, row_bytes;
  bool operator==(const GatherColumnsArgs&) const = default;
};
void gather_columns(const Stream& stream, const GatherColumnsArgs& args, int64_t out_rows);
/// Row rows[i] of out f32 (…, cols) (+)= row i of x. No row is named twice.
struct ScatterRowsArgs {
  float* out;
  const float* x;
  const int32_t* rows;
  int cols;
  bool accumulate;
  bool operator==(const ScatterRowsArgs&) const = default;
};
void scatter_rows(const Stream& stream, const ScatterRowsArgs& args, int64_t count);

/// Row ids[r] of dtable f32 (vocab, cols) += row r of dx, whose rows are dx_stride apart.
struct EmbedBackwardArgs {
  float* dtable;
  const float* dx;
  const int32_t* ids;  // (rows)
  int64_t rows, cols, dx_stride;
  bool operator==(const EmbedBackwardArgs&) const = default;
};
void embed_backward(const Stream& stream, const EmbedBackwardArgs& args);

/// dweight (cols) += the rows of dy · x / rms(x), dy and x f32 (rows, cols).
struct NormWeightArgs {
  float* dweight;
  const float* dy;
  const float* x;
  float* factors;  // (rows) work space
  int64_t rows, cols;
  float eps;
  bool operator==(const NormWeightArgs&) const = default;
};
void rms_norm_weight(const Stream& stream, const NormWeightArgs& args);

/// sums f32 (cols) += the rows of x C (rows, cols).
void column_sums(const Stream& stream, Element element, float* sums, const void* x, int64_t rows,
                 int64_t cols);

/// As Dropout in backend/backbone_train_backend.h: `threshold` of 65536 are dropped, the others
/// multiplied by `factor`.
struct DropoutArgs {
  uint64_t seed;
  uint32_t step, site, first_row, threshold;
  float factor;
  int cols;
  bool operator==(const DropoutArgs&) const = default;
};
/// out C = x C of which some are dropped.
void dropout(const Stream& stream, Element element, void* out, const void* x,
             const DropoutArgs& args, int64_t rows);
/// out f32 += x f32 of which some are dropped.
void add_dropped(const Stream& stream, float* out, const float* x, const DropoutArgs& args,
                 int64_t rows);

struct DivergenceArgs {
  void* grad;            // C (rows, cols), zero from `vocab` on
  double* divergences;   // (rows)
  const float* student;  // (rows, cols)
  const float* teacher;
  const float* weights;  // (rows)
  int cols, vocab;
  bool operator==(const DivergenceArgs&) const = default;
};
void divergence(const Stream& stream, Element element, const DivergenceArgs& args, int64_t rows);

/// Consecutive rows of one document.
struct DocumentTile {
  int32_t first, length;  // the document's rows
  int32_t start;          // the tile's first, counted from the document's
};
inline constexpr int kDocumentTile = 64;  // rows

/// q, dq, dout f32 (rows, heads · head_dim), k, dk, v, dv f32 (rows, kv heads · head_dim).
struct TrainAttentionArgs {
  const float *q, *k, *v;
  const DocumentTile* tiles;
  int num_tiles;
  int num_heads, num_kv_heads, head_dim, window;  // window 0: all of the document
  float scale;
  bool operator==(const TrainAttentionArgs&) const = default;
};
/// out C, as q.
void train_attention(const Stream& stream, Element element, const TrainAttentionArgs& args,
                     void* out);

/// What a query's softmax needs to be computed anew, and the sum of its p · dp.
struct SoftmaxState {
  float top, total, dot;
};
struct TrainAttentionGradients {
  const float* dout;
  float *dq, *dk, *dv;
  SoftmaxState* states;  // (rows, heads)
  bool operator==(const TrainAttentionGradients&) const = default;
};
void train_attention_backward(const Stream& stream, Element element, const TrainAttentionArgs& args,
                              const TrainAttentionGradients& gradients);

}  // namespace medusa::cuda
