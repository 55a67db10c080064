#include "backend/cpu/logprobs.h"

#include <cmath>

namespace medusa::cpu {
namespace {

// Sum in an order that depends on n alone.
double sum(const float* values, int64_t n) {
  constexpr int kLanes = 8;
  double lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) lanes[lane] += values[i + lane];
  }
  double total = 0;
  for (const double lane : lanes) total += lane;
  for (; i < n; ++i) total += values[i];
  return total;
}

double log_sum_exp(const KernelTable& kernels, const float* logits, int64_t vocab, float* work) {
  const float top = logits[kernels.argmax(logits, vocab)];
  kernels.weigh(work, logits, vocab, 1.0f, top);
  return top + std::log(sum(work, vocab));
}

int32_t rank_of(int32_t token, const float* logits, int64_t vocab) {
  const float value = logits[token];
  int32_t before = 0;
  for (int64_t i = 0; i < token; ++i) before += logits[i] >= value;
  for (int64_t i = token + 1; i < vocab; ++i) before += logits[i] > value;
  return before + 1;
}

}  // namespace

void token_logprobs(const KernelTable& kernels, const LogprobRow& row, const float* logits,
                    int64_t vocab, const SampleScratch& scratch) {
  const double total = log_sum_exp(kernels, logits, vocab, scratch.weights);
  const auto entry = [&](int32_t id, int32_t rank) {
    return TokenLogprob{id, rank, static_cast<float>(logits[id] - total)};
  };
  row.out[0] = entry(row.token, rank_of(row.token, logits, vocab));
  const auto count = static_cast<int64_t>(row.out.size()) - 1;
  if (count == 0) return;
  kernels.top_k(scratch.weights, scratch.ids, count, logits, vocab);
  for (int32_t i = 0; i < count; ++i) {
    row.out[static_cast<size_t>(i) + 1] = entry(scratch.ids[i], i + 1);
  }
}

}  // namespace medusa::cpu
