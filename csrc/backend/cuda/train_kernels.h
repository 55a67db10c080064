#pragma once

#include <cstddef>
#include <cstdint>

#include "backend/adam_step.h"
#include "backend/cuda/kernels.h"
#include "backend/cuda/runtime.h"

// The launchers of training's verbs: as kernels.h. C is `element`, f32 or bf16.
namespace medusa::cuda {

/// How the operands of c (rows, columns) (+)= a · b lie in memory.
enum class GemmForm : uint8_t {
  plain,     // a (rows, inner), b (inner, columns)
  turned_b,  // b as (columns, inner): a weight (out, in) that rows are multiplied with
  turned_a,  // a as (inner, rows): gradients of weights
};

/// Strides are elements between rows, multiples of 8, and hold what lies between the last row or
/// column that counts and the next multiple of 8. Pointers are 16-byte aligned.
struct GemmArgs {
  float* c;       // (rows, c_columns)
  const void* a;  // C
  const void* b;  // C
  int64_t rows, columns, inner;
  int64_t a_stride, b_stride, c_stride;
  int64_t c_columns;  // >= columns: those beyond are sums of nothing; of turned_b alone
  bool accumulate;
  bool operator==(const GemmArgs&) const = default;
};
/// Each element of c is one chain over `inner`, whatever the other sizes.
void gemm(const Stream& stream, Element element, GemmForm form, const GemmArgs& args);

struct PlaceRowsArgs {
  void* out;       // C (rows, out_stride) from its first column on
  const void* in;  // f32 or bf16 (in_rows, columns)
  int64_t rows, in_rows, columns, out_stride;
  bool operator==(const PlaceRowsArgs&) const = default;
};
/// Rows from in_rows on become zero.
void place_rows(const Stream& stream, Element element, Element in, const PlaceRowsArgs& args);

struct AddColumnsArgs {
  float* out;      // (rows, columns)
  const float* x;  // (rows, x_stride)
  int64_t rows, columns, x_stride;
  bool operator==(const AddColumnsArgs&) const = default;
};
void add_columns(const Stream& stream, const AddColumnsArgs& args);

/// out bf16 = x f32, to nearest even.
void narrow(const Stream& stream, void* out, const float* x, int64_t count);

struct TransposeArgs {
  void* out;      // C (columns, out_stride)
  const void* x;  // C (rows, x_stride)
  int64_t rows, columns, out_stride, x_stride;
  bool operator==(const TransposeArgs&) const = default;
};
void transpose(const Stream& stream, Element element, const TransposeArgs& args);

struct ResidualSiluArgs {
  void* out;      // C (rows, columns)
  const void* x;  // C (rows, x_stride)
  float* z;       // (rows, columns)
  const float* bias;
  int64_t rows, columns, x_stride;
  bool operator==(const ResidualSiluArgs&) const = default;
};
void residual_silu(const Stream& stream, Element element, const ResidualSiluArgs& args);

struct SiluBackwardArgs {
  void* dz;      // C (rows, columns)
  float* dbias;  // (columns) +=, rows in a fixed order
  const float* dh;
  const float* z;
  int64_t rows, columns;
  bool operator==(const SiluBackwardArgs&) const = default;
};
void silu_backward(const Stream& stream, Element element, const SiluBackwardArgs& args);

/// Of one row; twin of TargetScore.
struct RowScore {
  float log_prob;
  int32_t rank;
};
struct CrossEntropyArgs {
  void* grad;           // C (rows, stride)
  RowScore* scores;     // (rows)
  const float* logits;  // (rows, stride)
  const int32_t* targets;
  int64_t rows, vocab, stride;
  float scale;
  bool operator==(const CrossEntropyArgs&) const = default;
};
void cross_entropy(const Stream& stream, Element element, const CrossEntropyArgs& args);

/// sum = Σ x², with squared_norm_parts(count) doubles of scratch.
int64_t squared_norm_parts(int64_t count);
void squared_norm(const Stream& stream, double* sum, double* parts, const float* x, int64_t count);

struct AdamArgs {
  float* weights;
  const float* grads;
  float* mean;
  float* square;
  int64_t count;
  AdamStep step;
  bool operator==(const AdamArgs&) const = default;
};
void adamw(const Stream& stream, const AdamArgs& args);

}  // namespace medusa::cuda
