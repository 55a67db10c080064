// Every figure of a GPU's ring: what the device gives at best, each verb, whole steps, whole
// answers. Usage: gpu_benchmark [--tiny] [--json FILE] [--seconds N]. Ends with 1 where Medusa's
// ids are not plain decoding's, or there is no GPU.
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <string>
#include <string_view>

#include "backend/backend.h"
#include "base/check.h"
#include "gpu/bench.h"
#include "medusa/device.h"

namespace medusa::benchmark {

void measure_device(Report& report, const Plan& plan, DeviceClock& clock) {
  report.add("device", {{"name", make_backend({.device = "cuda"})->name()}});
  report.add("read", {{"bytes", double(clock.bytes())}, {"GB/s", clock.read_rate()}});
  constexpr int kLaunches = 100;
  const auto launches = [&] {
    for (int i = 0; i < kLaunches; ++i) cuda::do_nothing(clock.stream());
  };
  const double host = seconds_of(launches) / kLaunches;
  const double device = clock.seconds(launches, 1, plan.repeats) / kLaunches;
  report.add("launch", {{"host_us", host * 1e6}, {"dependent_us", device * 1e6}});
}

namespace {

struct Options {
  bool tiny = false;
  std::string json;
  double seconds = 420;
};

Options parse(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string_view name = argv[i];
    const bool has_value = i + 1 < argc;
    if (name == "--tiny") {
      options.tiny = true;
    } else if (name == "--json" && has_value) {
      options.json = argv[++i];
    } else if (name == "--seconds" && has_value) {
      options.seconds = std::atof(argv[++i]);
    } else {
      check(false, "expected --tiny, --json FILE or --seconds N, found ", name);
    }
  }
  return options;
}

// Whether the weights, their copies and a cache fit.
bool fits(const ModelConfig& config, size_t held) {
  const double d = config.hidden_size, kv = double(config.num_key_value_heads) * config.head_dim;
  const double q = double(config.num_attention_heads) * config.head_dim;
  const double layer = 2 * d * q + 2 * d * kv + 3 * d * config.intermediate_size;
  const double weights = config.num_hidden_layers * layer + 2 * d * config.vocab_size;
  return 2.5 * weights + static_cast<double>(held) < static_cast<double>(cuda::free_memory());
}

bool run(const Options& options) {
  const Plan plan = options.tiny ? tiny_plan() : full_plan();
  Report report(options.json, options.seconds);
  DeviceClock clock(std::min(plan.read_bytes, cuda::free_memory() / 8));
  measure_device(report, plan, clock);
  bool same = true;
  for (const Plan::Shape& shape : plan.models) {
    const bool late = report.late(), room = fits(shape.config, size_t{2} << 30);
    if (late || !room) {
      report.add("left out", {{"model", shape.name}, {"for", late ? "time" : "memory"}});
      continue;
    }
    measure_verbs(report, plan, shape, clock);
    same = measure_steps(report, plan, shape, clock) && same;
  }
  report.add("end", {{"seconds", report.elapsed()}});
  return same;
}

}  // namespace
}  // namespace medusa::benchmark

int main(int argc, char** argv) {
  using namespace medusa;
  if (const std::string reason = why_no_cuda(); !reason.empty()) {
    std::fprintf(stderr, "gpu_benchmark: nothing was measured: %s\n", reason.c_str());
    return 1;
  }
  try {
    return benchmark::run(benchmark::parse(argc, argv)) ? 0 : 1;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "gpu_benchmark: %s\n", error.what());
    return 1;
  }
}
