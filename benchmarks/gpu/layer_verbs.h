#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "medusa/config.h"

namespace medusa::benchmark {

/// A verb over tensors of a model's shape, ready to run.
struct VerbCall {
  std::string verb;
  int rows;
  int context;   // of attention, else 0
  size_t bytes;  // the fewest it can move: all it needs read once, all it leaves written once
  std::function<void()> run;
};
using VerbMeter = std::function<void(const VerbCall&)>;

/// What verbs of one layer, of the lm_head and of heads are called with.
struct VerbShapes {
  ModelConfig config;
  std::vector<int> rows;
  std::vector<int> contexts;
  int draft_vocab;     // of the heads' own projection
  size_t working_set;  // bytes of equal weights that take turns, so that none is in a cache
};

/// Shows every verb that a step, or a request with rules, asks of a back end in bf16 to `meter`.
void for_every_verb(Backend& backend, const VerbShapes& shapes, const VerbMeter& meter);

}  // namespace medusa::benchmark
