// Of each row of logits: the entropy of softmax(logits / temperature), and the log-probabilities of
// given tokens. A block a row, its sums in an order that the vocabulary alone fixes.
#include "backend/cuda/device/reduce.cuh"
#include "backend/cuda/kernels.h"
#include "backend/cuda/kernels/noise.cuh"
#include "backend/cuda/launch.h"

namespace medusa::cuda {
namespace {

constexpr int kThreads = 512;
constexpr float kFloor = -88.0f;  // exp() is 0 from here on

struct SoftmaxSums {
  float weights, exponents;  // of e^z and z · e^z
};

// NaN and whatever lies far below the top weigh nothing.
__device__ __forceinline__ SoftmaxSums softmax_sums(const float* logits, int vocab, float inverse,
                                                    float top) {
  float weights = 0.0f, exponents = 0.0f;
  for (int i = threadIdx.x; i < vocab; i += kThreads) {
    const float scaled = (logits[i] - top) * inverse;
    const float z = scaled > kFloor ? scaled : kFloor;
    const float e = expf(z);
    weights += e;
    exponents = fmaf(z, e, exponents);
  }
  return {sum_block<kThreads>(weights), sum_block<kThreads>(exponents)};
}

__global__ void __launch_bounds__(kThreads) posterior_kernel(PosteriorArgs a) {
  const JudgeRow judged = a.rows[blockIdx.x];
  const DrawRow row = judged.draw;
  const float* logits = a.logits + row.row * a.vocab;
  const int first = judged.first_token, last = first + judged.num_tokens;
  uint64_t best = 0;
  for (int i = threadIdx.x; i < a.vocab; i += kThreads) {
    best = Highest::join(best, ranked(logits[i], i));
  }
  best = reduce_block<Highest, kThreads>(best);
  const float top = ranked_value(best);
  if (takes_likeliest(row.temperature, top)) {
    if (threadIdx.x == 0) a.entropies[judged.entropy] = 0.0f;
    for (int i = first + static_cast<int>(threadIdx.x); i < last; i += kThreads) {
      a.log_probs[i] = a.tokens[i] == ranked_id(best) ? 0.0f : -INFINITY;
    }
    return;
  }
  const float inverse = 1.0f / row.temperature;
  const SoftmaxSums sums = softmax_sums(logits, a.vocab, inverse, top);
  const float log_sum = logf(sums.weights);
  const float entropy = log_sum - sums.exponents / sums.weights;
  if (threadIdx.x == 0) a.entropies[judged.entropy] = entropy > 0.0f ? entropy : 0.0f;
  for (int i = first + static_cast<int>(threadIdx.x); i < last; i += kThreads) {
    const float logit = logits[a.tokens[i]];
    a.log_probs[i] = logit > -INFINITY ? (logit - top) * inverse - log_sum : -INFINITY;
  }
}

}  // namespace

void posterior(const Stream& stream, const PosteriorArgs& a) {
  launch(stream, dim3(static_cast<unsigned>(a.num_rows)), kThreads, 0, posterior_kernel, a);
}

}  // namespace medusa::cuda
