#pragma once

#include <stdint.h>

#include "backend/adam_step.h"
#include "backend/cpu/kernels.h"

namespace medusa::cpu {

/// One block of C (+)= A · B in lanes of 32 bits: a float, or two neighbouring bf16 of the inner
/// dimension. A: (rows, lanes) row-major. B: panels of 16 columns, [panel][lane][16]. C: f32.
/// An element of C is one chain over the lanes, whatever the block. For bf16 `lanes` is a multiple
/// of 16, and A can be read up to the next multiple of 16 rows.
struct GemmBlock {
  const uint32_t* a = nullptr;
  int64_t a_stride = 0;  // lanes between rows
  const uint32_t* b = nullptr;
  int64_t lanes = 0;
  int64_t panel_lanes = 0;  // between panels; 0: lanes
  float* c = nullptr;
  int64_t c_stride = 0;  // floats between rows
  int64_t rows = 0;
  int64_t panels = 0;
  bool accumulate = false;
};

/// What a row of logits says about its target.
struct CrossEntropy {
  float max = 0;     // of the row
  float sum = 0;     // of exp(logit - max)
  float target = 0;  // the target's logit
  int32_t rank = 0;  // logits before the target's: higher, or equal with a lower index
};

/// KL(teacher || student) = cross + log(ratio).
struct Divergence {
  double cross;
  double ratio;  // of the sums of exp(logit - max), student's by teacher's
};

/// One row's noise: element i is kept, times `factor`, when 16 random bits that are a function of
/// all else here and of i reach `threshold`.
struct DropoutRow {
  uint64_t seed;
  uint32_t step, site, row;
  uint32_t threshold;  // of 65536: the share that is dropped
  float factor;        // 1 / (1 - that share)
};

/// The arithmetic of training on one instruction set. Arrays of two: [kF32], [kBf16]; `void`
/// operands have that type. Counts of floats are multiples of 16.
struct TrainKernels {
  const char* name;
  void (*gemm[2])(const GemmBlock& block);

  // One panel, [lane][16], of B = Wᵀ: `rows` <= 16 rows of W, each of `lanes` lanes.
  void (*pack_transposed)(uint32_t* out, const uint32_t* w, int64_t lanes, int64_t rows);
  // One panel of B = X, from column `column` of X (inner, columns); `stride` in elements.
  void (*pack[2])(uint32_t* out, const void* x, int64_t stride, int64_t column, int64_t lanes);
  // 16 rows, (16, lanes), of A = Xᵀ.
  void (*transpose[2])(uint32_t* out, const void* x, int64_t stride, int64_t column, int64_t lanes);
  void (*narrow)(uint16_t* out, const float* in, int64_t count);  // to bf16, nearest even

  // z += bias; out = x + silu(z).
  void (*residual_silu[2])(void* out, const void* x, float* z, const float* bias, int64_t count);
  // dz = dh · silu'(z); dbias += dz.
  void (*silu_backward[2])(void* dz, const float* dh, const float* z, float* dbias, int64_t count);

  // logits become exp(logit - max); padding must be -infinity.
  CrossEntropy (*softmax)(float* logits, int64_t count, int64_t target);
  void (*scale[2])(void* out, const float* x, float factor, int64_t count);

  double (*squared_norm)(const float* x, int64_t count);
  void (*adamw)(float* weights, const float* grads, float* mean, float* square, int64_t count,
                const AdamStep& step);

  // A transformer layer, one row at a time.
  void (*rms_norm[2])(void* out, const float* x, const float* weight, int64_t count, float eps);
  void (*rms_norm_backward)(float* dx, const float* dy, const float* x, const float* weight,
                            int64_t count, float eps, bool accumulate);
  void (*rms_norm_weight)(float* dweight, const float* dy, const float* x, int64_t count,
                          float eps);  // adds one row's share
  void (*rotate)(float* x, const float* cos, const float* sin, int64_t head_dim, bool interleaved,
                 float turn);
  void (*silu_mul[2])(void* out, const float* gate, const float* up, int64_t count);
  void (*silu_mul_backward[2])(void* dgate, void* dup, const float* dy, const float* gate,
                               const float* up, int64_t count);
  void (*add[2])(float* out, const void* x, int64_t count);
  void (*probabilities)(float* scores, int64_t first, int64_t last, int64_t count, float scale);
  void (*probabilities_backward[2])(void* ds, const float* p, const float* dp, int64_t count,
                                    float scale);
  // KL(teacher || student) of one row; grad = scale · (student's - teacher's probabilities).
  // Logits are overwritten; padding must be -infinity.
  Divergence (*divergence[2])(void* grad, float* student, float* teacher, int64_t count,
                              float scale);
  void (*dropout[2])(void* out, const void* x, int64_t count, const DropoutRow& row);
  void (*add_dropped)(float* out, const float* x, int64_t count, const DropoutRow& row);
};

const TrainKernels& generic_train_kernels();
const TrainKernels& avx2_train_kernels();
const TrainKernels& avx512_train_kernels();
const TrainKernels& avx512_bf16_train_kernels();
const TrainKernels& amx_train_kernels();

}  // namespace medusa::cpu
