#pragma once

#include <cstdint>
#include <utility>
#include <vector>

namespace medusa {

/// How one request is decoded. Names and meanings are vLLM's.
struct SamplingParams {
  int max_tokens = 256;
  float temperature = 0.0f;  // 0: argmax, lowest id on ties
  float top_p = 1.0f;        // 1: off
  int top_k = 0;             // 0: off
  float min_p = 0.0f;        // 0: off
  uint64_t seed = 0;
  std::vector<int32_t> stop_token_ids = {};  // the model's own end tokens included, unless ignored
  int min_tokens = 0;                        // stop tokens cannot be drawn before
  bool speculative = true;                   // false: decode this request plainly

  float repetition_penalty = 1.0f;                         // of ids in prompt or answer; 1: off
  float presence_penalty = 0.0f;                           // of ids in the answer; 0: off
  float frequency_penalty = 0.0f;                          // likewise, for each time; 0: off
  std::vector<std::pair<int32_t, float>> logit_bias = {};  // id, what is added to its logit
  std::vector<int32_t> allowed_token_ids = {};             // empty: all
  std::vector<std::vector<int32_t>> bad_words = {};        // sequences the answer cannot contain
  int logprobs = -1;         // likeliest ids reported beside each token; -1: off
  int prompt_logprobs = -1;  // likewise for the prompt, its first token excepted
};

/// Log probability of a token under the model's own logits, before any parameter changes them.
struct TokenLogprob {
  int32_t id = 0;
  int32_t rank = 0;  // 1: the likeliest; lower ids first on ties
  float logprob = 0;
};

}  // namespace medusa
