#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

namespace medusa {

/// What a request does to a row of logits before a token is drawn from it: vLLM's processors. A
/// row's result is a function of these fields alone. Views; the request owns what they show.
struct LogitsRules {
  std::span<const int32_t> allowed = {};                 // ids; empty: all
  std::span<const int32_t> banned = {};                  // ids
  std::span<const std::vector<int32_t>> bad_words = {};  // not one is completed by the draw
  std::span<const std::pair<int32_t, float>> bias = {};  // added to the id's logit
  float repetition_penalty = 1;  // divides a positive logit, multiplies any other, of ids seen
  float presence_penalty = 0;    // subtracted from logits of ids that the answer has
  float frequency_penalty = 0;   // subtracted as often as the answer has them

  // What the draw comes after: the prompt, the committed answer, and of the tree the path from
  // below the root to the node that is drawn at.
  std::span<const int32_t> prompt = {};
  std::span<const int32_t> answer = {};
  std::span<const int32_t> path = {};

  bool penalise() const {
    return repetition_penalty != 1 || presence_penalty != 0 || frequency_penalty != 0;
  }
  bool change_anything() const {
    return penalise() || !allowed.empty() || !banned.empty() || !bad_words.empty() || !bias.empty();
  }
};

}  // namespace medusa
