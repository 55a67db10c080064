// Each verb alone, on the device's clock: seconds, bytes moved at least, GB/s and their share of a
// read of as many bytes.
#include "gpu/bench.h"
#include "gpu/layer_verbs.h"

namespace medusa::benchmark {

void measure_verbs(Report& report, const Plan& plan, const Plan::Shape& shape, DeviceClock& clock) {
  const auto backend = make_backend({.device = "cuda", .stream = clock.stream().handle()});
  const VerbShapes shapes{shape.config, plan.rows, plan.contexts, plan.draft_vocab,
                          plan.working_set};
  for_every_verb(*backend, shapes, [&](const VerbCall& call) {
    const double seconds = clock.seconds(call.run, plan.calls, plan.repeats);
    const double rate = static_cast<double>(call.bytes) / seconds / 1e9;
    report.add("verb", {{"model", shape.name},
                        {"verb", call.verb},
                        {"rows", double(call.rows)},
                        {"context", double(call.context)},
                        {"us", seconds * 1e6},
                        {"bytes", double(call.bytes)},
                        {"GB/s", rate},
                        {"of_stream", rate / clock.read_rate()}});
  });
}

}  // namespace medusa::benchmark
