// Of each row of logits: the entropy of softmax(logits / temperature), and the log-probabilities of
// given tokens. A block a row, its sums in an order that the vocabulary alone fixes.
#include "backend/cuda/device/reduce.cuh"
#include "backend/cuda/kernels.h"
#include "backend/cuda/kernels/noise.cuh"
#include "backend/cuda/kernels/softmax_sums.cuh"
#include "backend/cuda/launch.h"

namespace medusa::cuda {
namespace {

constexpr int kThreads = 512;

__device__ __forceinline__ SoftmaxSums softmax_sums(const float* logits, int vocab, float inverse,
                                                    float top) {
  SoftmaxSums sums{};
  for (int i = threadIdx.x; i < vocab; i += kThreads) sums.add(logits[i], top, inverse);
  return {sum_block<kThreads>(sums.weights), sum_block<kThreads>(sums.exponents)};
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
  if (threadIdx.x == 0) a.entropies[judged.entropy] = sums.entropy();
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
