#pragma once

#include <cstdint>
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
};

}  // namespace medusa
