#include "medusa/engine.h"

#include <algorithm>

#include "base/check.h"
#include "decode/engine_impl.h"
#include "decode/record.h"
#include "decode/sampler.h"
#include "decode/typical.h"
#include "model/sequence_runner.h"

namespace medusa {
namespace {

void check_tree(const Tree& tree, const std::optional<Heads>& heads) {
  if (tree.size() == 1) return;
  check(heads.has_value(), "tree: expected heads for a tree of ", tree.size(),
        " nodes, found none");
  check(tree.depth() <= heads->num_heads(), "tree: expected a depth of at most the ",
        heads->num_heads(), " heads, found ", tree.depth());
  check(tree.max_rank() < heads->draft_vocab_size() && tree.max_rank() < kMaxTopK,
        "tree: expected ranks below ", std::min(heads->draft_vocab_size(), kMaxTopK), ", found ",
        tree.max_rank());
}

}  // namespace

Engine::Engine(const Model& model, std::optional<Heads> heads, Tree tree,
               const EngineOptions& options) {
  check_tree(tree, heads);
  const std::lock_guard lock(model.impl()->mutex);
  impl_ = std::make_unique<Impl>(model, std::move(heads), std::move(tree), options);
}
Engine::~Engine() = default;
Engine::Engine(Engine&&) noexcept = default;

int64_t Engine::submit(std::span<const int32_t> prompt, const SamplingParams& params) {
  const ModelConfig& config = impl_->model.config();
  check(!prompt.empty(), "prompt: expected at least one token, found none");
  check(static_cast<int64_t>(prompt.size()) < impl_->options.max_model_len,
        "prompt: expected fewer tokens than max_model_len = ", impl_->options.max_model_len,
        ", found ", prompt.size());
  check_tokens(prompt, config.vocab_size);
  check_sampling(params, config.vocab_size);
  if (impl_->accepts_typically(params)) check_typical(params);
  auto sequence = impl_->make_sequence(prompt, params);
  sequence->id = impl_->next_id++;
  impl_->scheduler.enqueue(sequence.get());
  ++impl_->totals.num_requests;
  impl_->totals.num_prompt_tokens += sequence->prompt_size;
  return impl_->sequences.emplace(sequence->id, std::move(sequence)).first->first;
}

std::span<const StepOutput> Engine::step() {
  impl_->outputs.clear();
  impl_->scheduler.plan(impl_->cache, impl_->plan);
  if (impl_->plan.size == 0) return {};
  const std::lock_guard lock(impl_->model.impl()->mutex);
  impl_->run_step();
  return impl_->outputs;
}

void Engine::cancel(int64_t request_id) {
  Sequence* sequence = impl_->find(request_id);
  if (sequence == nullptr || sequence->finished()) return;
  impl_->scheduler.remove(sequence, impl_->cache);
  sequence->finish_reason = FinishReason::abort;
  impl_->rest();
}

void Engine::set_tree(Tree tree) {
  const Tree& most = impl_->tree;
  check(!impl_->options.adaptive, "set_tree: this engine chooses its trees itself (adaptive)");
  check(tree.size() <= most.size() && tree.depth() <= most.depth() &&
            tree.max_rank() <= most.max_rank(),
        "tree: expected at most the engine's ", most.size(), " nodes, depth ", most.depth(),
        " and rank ", most.max_rank(), ", found ", tree.size(), ", ", tree.depth(), " and ",
        tree.max_rank());
  impl_->scheduler.trees().pin(tree);
}

bool Engine::has_unfinished() const { return !impl_->scheduler.idle(); }

Metrics Engine::metrics(int64_t request_id) const {
  const Sequence* sequence = impl_->find(request_id);
  check(sequence != nullptr, "request_id: expected a known request, found ", request_id);
  return sequence->metrics;
}

Metrics Engine::metrics() const {
  Metrics all = impl_->totals;
  for (const auto& [id, sequence] : impl_->sequences) add_cache_use(sequence->metrics, all);
  return all;
}

void Engine::forget(int64_t request_id) {
  cancel(request_id);
  const Sequence* sequence = impl_->find(request_id);
  if (sequence != nullptr) add_cache_use(sequence->metrics, impl_->totals);
  impl_->sequences.erase(request_id);
}

int Engine::num_pages() const { return impl_->cache.num_pages(); }
int Engine::num_free_pages() const { return impl_->cache.free_pages(); }
const EngineOptions& Engine::options() const { return impl_->options; }
size_t Engine::kv_cache_bytes() const { return impl_->cache.bytes(); }
size_t Engine::workspace_bytes() const {
  const size_t heads = impl_->heads_workspace ? impl_->heads_workspace->bytes() : 0;
  return impl_->workspace.bytes() + heads + impl_->rope.bytes();
}

}  // namespace medusa
