#pragma once

#include <string>
#include <vector>

#include "gpu/device_clock.h"
#include "gpu/report.h"
#include "medusa/config.h"

namespace medusa::benchmark {

/// What is measured, and how thoroughly.
struct Plan {
  struct Shape {
    std::string name;
    ModelConfig config;
  };
  std::vector<Shape> models;
  std::vector<int> rows = {1, 16, 64, 128};
  std::vector<int> contexts = {128, 1024, 2048};
  size_t read_bytes = size_t{4} << 30;     // of the read stream
  size_t working_set = size_t{256} << 20;  // of rotating weights, beyond any cache
  int calls = 20, repeats = 7;
  int answer = 128;         // tokens of a decoded answer
  int draft_vocab = 32000;  // of trimmed heads
};

/// Everything, of Llama-3.2-1B's, Llama-3.1-8B's and Vicuna-7B's shapes.
Plan full_plan();
/// The same program over a model of a few kilobytes, for a device that is emulated.
Plan tiny_plan();

/// Reading, launching.
void measure_device(Report& report, const Plan& plan, DeviceClock& clock);
/// Every verb of a layer, at every number of rows.
void measure_verbs(Report& report, const Plan& plan, const Plan::Shape& shape, DeviceClock& clock);
/// Forward passes of the whole model, then answers, plainly and with heads. False: ids differ.
bool measure_steps(Report& report, const Plan& plan, const Plan::Shape& shape, DeviceClock& clock);

}  // namespace medusa::benchmark
