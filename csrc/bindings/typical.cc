#include "decode/typical.h"

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include "base/check.h"
#include "bindings/bindings.h"

namespace py = pybind11;
using namespace py::literals;

namespace medusa {
namespace {

using FloatMatrix = py::array_t<float, py::array::c_style | py::array::forcecast>;

// One sequence whose tree has just been judged by the backbone.
std::pair<std::vector<int32_t>, int32_t> accept_typical(const FloatMatrix& logits,
                                                        const std::vector<int32_t>& tokens,
                                                        const Tree& tree, float temperature,
                                                        float posterior_threshold,
                                                        float posterior_alpha) {
  check(logits.ndim() == 2 && logits.shape(0) == tree.size(), "logits: expected (", tree.size(),
        ", vocab), found ", logits.ndim(), " axes of ", logits.ndim() ? logits.shape(0) : 0);
  check(static_cast<int>(tokens.size()) == tree.size(), "tokens: expected ", tree.size(),
        ", found ", tokens.size());
  EngineOptions options;
  options.posterior_threshold = posterior_threshold;
  options.posterior_alpha = posterior_alpha;
  Sequence sequence;
  sequence.params.temperature = temperature;
  sequence.drafts = true;
  StepPlan plan;
  plan.entries.resize(1);
  PlanEntry& entry = plan.add();
  entry.sequence = &sequence;
  entry.tree = &tree;
  entry.num_rows = entry.num_logits_rows = tree.size();
  RowBatch batch;
  batch.tokens = tokens;
  const Tensor view{const_cast<float*>(logits.data()), DType::f32, logits.shape(0),
                    logits.shape(1)};
  const auto backend = make_cpu_backend({.compute_type = ComputeType::float32, .num_threads = 1});
  TypicalAcceptance(options, tree.depth(), tree.size()).walk(*backend, plan, batch, view);
  return {entry.accepted_rows, entry.next_root};
}

int path_end(const Tree& tree, const std::vector<float>& log_probs,
             const std::vector<float>& entropies, float log_threshold, float log_alpha) {
  const auto size = static_cast<size_t>(tree.size());
  check(log_probs.size() == size && entropies.size() == size, "log_probs and entropies: expected ",
        size, " each, found ", log_probs.size(), " and ", entropies.size());
  std::vector<float> scores(size);
  return typical_path_end({log_threshold, log_alpha},
                          {tree.parents(), tree.depths(), log_probs, entropies}, scores);
}

}  // namespace

void register_typical(py::module_& module) {
  module.def(
      "typical_path_end", &path_end, "tree"_a, "log_probs"_a, "entropies"_a, "log_threshold"_a,
      "log_alpha"_a,
      "The last node that typical acceptance keeps: `log_probs` (nodes) of each node's token "
      "at its parent, `entropies` (nodes) at each node.");
  module.def("accept_typical", &accept_typical, "logits"_a, "tokens"_a, "tree"_a,
             "temperature"_a = 1.0f, "posterior_threshold"_a = 0.09f, "posterior_alpha"_a = 0.3f,
             "The nodes of one tree that typical acceptance keeps, root first, and the next root. "
             "`logits`: (nodes, vocab); `tokens`: of the nodes.");
}

}  // namespace medusa
