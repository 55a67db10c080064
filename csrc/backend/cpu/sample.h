#pragma once

#include "backend/backend.h"
#include "backend/cpu/kernels.h"
#include "backend/cpu/scratch.h"

namespace medusa::cpu {

/// Memory of one thread for one row of logits.
struct SampleScratch {
  SampleScratch(Carver carver, int64_t vocab);
  float* logits;   // (vocab) a copy, where rules change them
  float* weights;  // (vocab)
  int32_t* ids;    // (vocab)
  size_t bytes;
};

/// Whether the likeliest id, whose logit is `top`, has all the probability: at temperature 0, and
/// where the logits are no finite numbers.
bool takes_likeliest(float temperature, float top);

/// The next token of one row, after process_logits(). Greedy: argmax. Else the Gumbel-max trick:
/// argmax of logits / temperature + noise over the ids that the filters keep, which draws each id
/// with exactly its softmax probability (up to f32 rounding). Filters are vLLM's, in its order:
/// min_p, top_k (ties with the k-th kept), top_p over what is left, renormalised (ties: lower ids
/// first).
int32_t sample_row(const KernelTable& kernels, const SampleRow& row, const float* logits,
                   int64_t vocab, const SampleScratch& scratch);

}  // namespace medusa::cpu
