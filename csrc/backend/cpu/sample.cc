#include "backend/cpu/sample.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include "backend/cpu/process_logits.h"

namespace medusa::cpu {
namespace {

constexpr int64_t kFastTopK = 64;  // where the sorted insertion of top_k pays
constexpr float kLowest = -std::numeric_limits<float>::infinity();

// The k-th highest logit, with multiplicity. `work` has room for all.
float kth_highest(const KernelTable& kernels, const float* logits, int64_t vocab, int64_t k,
                  float* work, int32_t* ids) {
  if (k <= kFastTopK) {
    kernels.top_k(work, ids, k, logits, vocab);
    return work[k - 1];
  }
  for (int64_t i = 0; i < vocab; ++i) work[i] = logits[i] == logits[i] ? logits[i] : kLowest;
  std::nth_element(work, work + (k - 1), work + vocab, std::greater<float>());
  return work[k - 1];
}

// Ids whose logit is at least `least` and above minus infinity, in order.
int64_t gather(int32_t* ids, const float* logits, int64_t vocab, float least) {
  int64_t count = 0;
  for (int64_t i = 0; i < vocab; ++i) {
    ids[count] = static_cast<int32_t>(i);
    count += (logits[i] >= least && logits[i] > kLowest) ? 1 : 0;
  }
  return count;
}

// Orders the heaviest `ids` first, as many as weigh `goal` together, and returns how many those
// are. Sorts only ids above a bound that is low enough.
int64_t keep_heaviest(int32_t* ids, int64_t count, const float* weights, double goal) {
  const auto heavier = [&](int32_t a, int32_t b) {
    return weights[a] != weights[b] ? weights[a] > weights[b] : a < b;
  };
  int64_t sorted = count;
  for (float bound : {1e-2f, 1e-4f, 1e-7f}) {
    double heavy = 0;
    for (int64_t i = 0; i < count; ++i) heavy += weights[ids[i]] >= bound ? weights[ids[i]] : 0;
    if (heavy < goal) continue;
    sorted =
        std::partition(ids, ids + count, [&](int32_t id) { return weights[id] >= bound; }) - ids;
    break;
  }
  std::sort(ids, ids + sorted, heavier);
  double above = 0;
  int64_t kept = 0;
  while (kept < sorted && above < goal) above += weights[ids[kept++]];
  return std::max<int64_t>(kept, 1);
}

double total_weight(const int32_t* ids, int64_t count, const float* weights) {
  double total = 0;
  for (int64_t i = 0; i < count; ++i) total += weights[ids[i]];
  return total;
}

// Ids that pass every filter, in scratch.ids; at least the likeliest.
int64_t filter(const KernelTable& kernels, const SampleRow& row, const float* logits, int64_t vocab,
               float inverse_temperature, float top, const SampleScratch& scratch) {
  float least = kLowest;
  if (row.min_p > 0) least = std::min(top, top + std::log(row.min_p) / inverse_temperature);
  if (row.top_k > 0 && row.top_k < vocab) {
    least = std::max(least,
                     kth_highest(kernels, logits, vocab, row.top_k, scratch.weights, scratch.ids));
  }
  const int64_t count = gather(scratch.ids, logits, vocab, least);
  if (row.top_p >= 1) return count;
  kernels.weigh(scratch.weights, logits, vocab, inverse_temperature, top);
  const double total = total_weight(scratch.ids, count, scratch.weights);
  return keep_heaviest(scratch.ids, count, scratch.weights, row.top_p * total);
}

int32_t draw_among(const KernelTable& kernels, const SampleRow& row, const float* logits,
                   float inverse_temperature, const SampleScratch& scratch, int64_t count) {
  kernels.noise(scratch.weights, scratch.ids, count, {row.seed, row.position});
  int32_t best_id = scratch.ids[0];
  float best = kLowest;
  for (int64_t i = 0; i < count; ++i) {
    const int32_t id = scratch.ids[i];
    const float value = logits[id] * inverse_temperature + scratch.weights[i];
    if (value > best || (value == best && id < best_id)) {
      best = value;
      best_id = id;
    }
  }
  return best_id;
}

}  // namespace

SampleScratch::SampleScratch(Carver carver, int64_t vocab)
    : logits(carver.take<float>(static_cast<size_t>(vocab))),
      weights(carver.take<float>(static_cast<size_t>(vocab))),
      ids(carver.take<int32_t>(static_cast<size_t>(vocab))),
      bytes(carver.used()) {}

bool takes_likeliest(float temperature, float top) {
  const float inverse = 1.0f / temperature;
  return !(temperature > 0) || !std::isfinite(inverse) || !std::isfinite(top * inverse);
}

int32_t sample_row(const KernelTable& kernels, const SampleRow& row, const float* logits,
                   int64_t vocab, const SampleScratch& scratch) {
  logits = process_logits(row.rules, logits, vocab, scratch.logits, scratch.ids);
  const int32_t likeliest = kernels.argmax(logits, vocab);
  const float inverse = 1.0f / row.temperature, top = logits[likeliest];
  if (takes_likeliest(row.temperature, top)) return likeliest;
  const bool filtered = row.min_p > 0 || row.top_p < 1 || (row.top_k > 0 && row.top_k < vocab);
  if (!filtered) return kernels.draw(logits, vocab, inverse, {row.seed, row.position});
  const int64_t count = filter(kernels, row, logits, vocab, inverse, top, scratch);
  return draw_among(kernels, row, logits, inverse, scratch, count);
}

}  // namespace medusa::cpu
