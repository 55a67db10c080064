#include "decode/sampler.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"

namespace medusa {
namespace {

LogitsRules logits_rules(const Sequence& sequence, int position, std::span<const int32_t> path) {
  const SamplingParams& params = sequence.params;
  LogitsRules rules{.allowed = params.allowed_token_ids,
                    .bad_words = params.bad_words,
                    .bias = params.logit_bias,
                    .repetition_penalty = params.repetition_penalty,
                    .presence_penalty = params.presence_penalty,
                    .frequency_penalty = params.frequency_penalty,
                    .prompt = sequence.prompt(),
                    .answer = sequence.answer(),
                    .path = path};
  if (position - sequence.prompt_size < params.min_tokens) rules.banned = params.stop_token_ids;
  return rules;
}

void check_range(const char* name, float value, float low, float high) {
  check(std::isfinite(value) && value >= low && value <= high, name, ": expected ", low, " to ",
        high, ", found ", value);
}

void check_filters(const SamplingParams& params) {
  check(std::isfinite(params.temperature) && params.temperature >= 0,
        "temperature: expected at least 0, found ", params.temperature);
  check_range("top_p", params.top_p, 0, 1);
  check(params.top_p > 0, "top_p: expected above 0, at most 1, found 0");
  check(params.top_k >= 0, "top_k: expected 0 (off) or more, found ", params.top_k);
  check_range("min_p", params.min_p, 0, 1);
}

void check_ids(const char* name, std::span<const int32_t> ids, int vocab_size) {
  for (const int32_t id : ids) {
    check(id >= 0 && id < vocab_size, name, ": expected 0 to ", vocab_size - 1, ", found ", id);
  }
}

void check_rules(const SamplingParams& params, int vocab_size) {
  check_range("repetition_penalty", params.repetition_penalty, 1e-4f, 1e4f);
  check_range("presence_penalty", params.presence_penalty, -2, 2);
  check_range("frequency_penalty", params.frequency_penalty, -2, 2);
  for (const auto& [id, bias] : params.logit_bias) {
    check_ids("logit_bias", {&id, 1}, vocab_size);
    check_range("logit_bias", bias, -100, 100);
  }
  check_ids("allowed_token_ids", params.allowed_token_ids, vocab_size);
  check_ids("stop_token_ids", params.stop_token_ids, vocab_size);
  for (const std::vector<int32_t>& word : params.bad_words) {
    check(!word.empty(), "bad_words: expected at least one token a word, found none");
    check_ids("bad_words", word, vocab_size);
  }
}

// What bans may leave at worst: no state of the answer bans more than every bad word's last token
// and every stop token. Were that everything, some draw would have nothing to take.
void check_choice_left(const SamplingParams& params, int vocab_size) {
  std::vector<bool> drawable(static_cast<size_t>(vocab_size), params.allowed_token_ids.empty());
  for (const int32_t id : params.allowed_token_ids) drawable[id] = true;
  for (const std::vector<int32_t>& word : params.bad_words) drawable[word.back()] = false;
  if (params.min_tokens > 0) {
    for (const int32_t id : params.stop_token_ids) drawable[id] = false;
  }
  for (const bool left : drawable) {
    if (left) return;
  }
  check(false,
        "allowed_token_ids, bad_words and min_tokens: expected a token that none of them "
        "can forbid, found none");
}

void check_logprobs(const char* name, int count, int vocab_size) {
  const int most = std::min(kMaxTopK, vocab_size);
  check(count >= -1 && count <= most, name, ": expected -1 (off) to ", most, ", found ", count);
}

}  // namespace

SampleRow sample_row(const Sequence& sequence, int64_t row, int position,
                     std::span<const int32_t> path) {
  const SamplingParams& params = sequence.params;
  return {.row = row,
          .temperature = params.temperature,
          .top_p = params.top_p,
          .top_k = params.top_k,
          .min_p = params.min_p,
          .seed = params.seed,
          .position = position,
          .rules = logits_rules(sequence, position, path)};
}

void check_sampling(const SamplingParams& params, int vocab_size) {
  check(params.max_tokens >= 1, "max_tokens: expected at least 1, found ", params.max_tokens);
  check(params.min_tokens >= 0 && params.min_tokens <= params.max_tokens,
        "min_tokens: expected 0 to max_tokens = ", params.max_tokens, ", found ",
        params.min_tokens);
  check_filters(params);
  check_rules(params, vocab_size);
  check_choice_left(params, vocab_size);
  check_logprobs("logprobs", params.logprobs, vocab_size);
  check_logprobs("prompt_logprobs", params.prompt_logprobs, vocab_size);
}

}  // namespace medusa
