#include "decode/sampler.h"

#include <cmath>

#include "base/check.h"

namespace medusa {

SampleRow sample_row(const Sequence& sequence, int64_t row, int position) {
  const SamplingParams& params = sequence.params;
  SampleRow draw{.row = row,
                 .temperature = params.temperature,
                 .top_p = params.top_p,
                 .top_k = params.top_k,
                 .min_p = params.min_p,
                 .seed = params.seed,
                 .position = position};
  if (position - sequence.prompt_size < params.min_tokens) draw.banned = params.stop_token_ids;
  return draw;
}

void check_sampling(const SamplingParams& params, int vocab_size) {
  const auto unit = [](float value) { return std::isfinite(value) && value >= 0 && value <= 1; };
  check(params.max_tokens >= 1, "max_tokens: expected at least 1, found ", params.max_tokens);
  check(params.min_tokens >= 0 && params.min_tokens <= params.max_tokens,
        "min_tokens: expected 0 to max_tokens = ", params.max_tokens, ", found ",
        params.min_tokens);
  check(std::isfinite(params.temperature) && params.temperature >= 0,
        "temperature: expected at least 0, found ", params.temperature);
  check(unit(params.top_p) && params.top_p > 0, "top_p: expected above 0, at most 1, found ",
        params.top_p);
  check(params.top_k >= 0, "top_k: expected 0 (off) or more, found ", params.top_k);
  check(unit(params.min_p), "min_p: expected 0 to 1, found ", params.min_p);
  for (const int32_t token : params.stop_token_ids) {
    check(token >= 0 && token < vocab_size, "stop_token_ids: expected 0 to ", vocab_size - 1,
          ", found ", token);
  }
}

}  // namespace medusa
