#include "backend/cpu/process_logits.h"

#include <algorithm>
#include <limits>

namespace medusa::cpu {
namespace {

constexpr float kLowest = -std::numeric_limits<float>::infinity();
constexpr int32_t kDone = -1;  // in place of a count

void copy_allowed(const LogitsRules& rules, const float* logits, int64_t vocab, float* out) {
  if (rules.allowed.empty()) {
    std::copy_n(logits, vocab, out);
    return;
  }
  std::fill_n(out, vocab, kLowest);
  for (const int32_t id : rules.allowed) out[id] = logits[id];
}

// Counts of ids in answer and path, at the ids that occur anywhere; other entries stay undefined.
void count_tokens(const LogitsRules& rules, int32_t* counts) {
  for (const auto tokens : {rules.prompt, rules.answer, rules.path}) {
    for (const int32_t id : tokens) counts[id] = 0;
  }
  for (const auto tokens : {rules.answer, rules.path}) {
    for (const int32_t id : tokens) ++counts[id];
  }
}

float penalised(const LogitsRules& rules, float logit, int32_t count) {
  logit = logit > 0 ? logit / rules.repetition_penalty : logit * rules.repetition_penalty;
  if (count == 0) return logit;
  logit -= rules.frequency_penalty * static_cast<float>(count);
  return logit - rules.presence_penalty;
}

void penalise(const LogitsRules& rules, float* logits, int32_t* counts) {
  count_tokens(rules, counts);
  for (const auto tokens : {rules.prompt, rules.answer, rules.path}) {
    for (const int32_t id : tokens) {
      if (counts[id] == kDone) continue;
      logits[id] = penalised(rules, logits[id], counts[id]);
      counts[id] = kDone;
    }
  }
}

// Whether answer and path, one after the other, end with `tail`.
bool ends_with(const LogitsRules& rules, std::span<const int32_t> tail) {
  if (tail.size() <= rules.path.size())
    return std::ranges::equal(tail, rules.path.last(tail.size()));
  const auto before = tail.first(tail.size() - rules.path.size());
  return before.size() <= rules.answer.size() &&
         std::ranges::equal(before, rules.answer.last(before.size())) &&
         std::ranges::equal(tail.last(rules.path.size()), rules.path);
}

void ban(const LogitsRules& rules, float* logits) {
  for (const int32_t id : rules.banned) logits[id] = kLowest;
  for (const std::span<const int32_t> word : rules.bad_words) {
    if (ends_with(rules, word.first(word.size() - 1))) logits[word.back()] = kLowest;
  }
}

}  // namespace

const float* process_logits(const LogitsRules& rules, const float* logits, int64_t vocab,
                            float* out, int32_t* counts) {
  if (!rules.change_anything()) return logits;
  copy_allowed(rules, logits, vocab, out);
  for (const auto& [id, bias] : rules.bias) out[id] += bias;
  if (rules.penalise()) penalise(rules, out, counts);
  ban(rules, out);
  return out;
}

}  // namespace medusa::cpu
