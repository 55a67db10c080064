#pragma once

#include <cstdlib>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "medusa/engine.h"
#include "tiny_model.h"

namespace medusa::testing {

/// For models loaded in its lifetime.
class Setting {
 public:
  Setting(const char* name, const std::string& value) : name_(name) {
    setenv(name, value.c_str(), 1);
  }
  ~Setting() { unsetenv(name_); }

 private:
  const char* name_;
};

/// 32 nodes: the best 24 of 101 ids below the root, so that random heads are right now and then.
inline Tree wide_tree() {
  std::vector<std::vector<int>> paths;
  for (int rank = 0; rank < 24; ++rank) paths.push_back({rank});
  for (int rank = 0; rank < 3; ++rank) paths.push_back({0, rank});
  for (int rank = 0; rank < 3; ++rank) paths.push_back({1, rank});
  paths.push_back({0, 0, 0});
  return Tree(std::move(paths));
}

/// A tiny model on the device under test that may be `steps` ahead, its heads and an engine.
struct LoopCase {
  explicit LoopCase(int steps,
                    const EngineOptions& options = {.max_num_seqs = 1, .max_model_len = 640},
                    std::vector<int32_t> token_map = {}, std::optional<Tree> tree = {})
      : setting("MEDUSA_CUDA_LOOP", std::to_string(steps)),
        source(7, ComputeType::bfloat16, 1, "cuda"),
        model((source.config().max_position_embeddings = 1024, source.load())),
        heads(make_heads(std::move(token_map))),
        engine(model, heads, tree ? *tree : wide_tree(), options) {}

  std::vector<int32_t> prompt(int size, unsigned seed = 3) const {
    std::mt19937 random(seed);
    return random_prompt(random, size, 101);
  }
  /// One request alone, to its end.
  std::vector<int32_t> answer(const std::vector<int32_t>& prompt, const SamplingParams& params) {
    const int64_t id = engine.submit(prompt, params);
    return run(engine)[id];
  }

  Setting setting;
  TinyModel source;
  Model model;
  Heads heads;
  Engine engine;

 private:
  Heads make_heads(std::vector<int32_t> token_map) {
    Heads::Source from;
    from.token_map = std::move(token_map);
    for (int head = 0; head < 3; ++head) {
      from.residual.push_back({{source.random({64, 64}, 0.3f), source.random({64}, 0.1f)}});
    }
    return Heads::load(model, from);
  }
};

}  // namespace medusa::testing
