#include "backend/cpu/posterior.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "backend/cpu/process_logits.h"

namespace medusa::cpu {
namespace {

constexpr float kLowest = -std::numeric_limits<float>::infinity();

void all_on_one(const PosteriorRow& row, int32_t id) {
  *row.entropy = 0;
  for (size_t i = 0; i < row.tokens.size(); ++i) {
    row.log_probs[i] = row.tokens[i] == id ? 0.0f : kLowest;
  }
}

}  // namespace

void posterior_row(const KernelTable& kernels, const PosteriorRow& row, const float* logits,
                   int64_t vocab, const SampleScratch& scratch) {
  logits = process_logits(row.draw.rules, logits, vocab, scratch.logits, scratch.ids);
  const int32_t likeliest = kernels.argmax(logits, vocab);
  const float top = logits[likeliest];
  if (takes_likeliest(row.draw.temperature, top)) return all_on_one(row, likeliest);
  const float inverse = 1.0f / row.draw.temperature;
  const SoftmaxSums sums = kernels.softmax_sums(logits, vocab, inverse, top);
  const float log_sum = std::log(sums.weights);
  *row.entropy = std::max(0.0f, log_sum - sums.exponents / sums.weights);
  for (size_t i = 0; i < row.tokens.size(); ++i) {
    const float logit = logits[row.tokens[i]];
    row.log_probs[i] = logit > kLowest ? (logit - top) * inverse - log_sum : kLowest;
  }
}

}  // namespace medusa::cpu
