#pragma once

#include "backend/backend.h"
#include "backend/cpu/kernels.h"
#include "backend/cpu/sample.h"

namespace medusa::cpu {

/// Entropy and log-probabilities of softmax(logits / temperature), the logits processed as for
/// sampling. Where sample_row() would take the likeliest id (temperature 0, no finite logit), that
/// id has all the probability.
void posterior_row(const KernelTable& kernels, const PosteriorRow& row, const float* logits,
                   int64_t vocab, const SampleScratch& scratch);

}  // namespace medusa::cpu
