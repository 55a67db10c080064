#include "medusa/engine.h"

#include <algorithm>
#include <map>

#include "backend/ops.h"
#include "base/check.h"
#include "decode/accept.h"
#include "decode/draft.h"
#include "decode/limits.h"
#include "decode/logprobs.h"
#include "decode/record.h"
#include "decode/sampler.h"
#include "decode/scheduler.h"
#include "decode/step_plan.h"
#include "decode/typical.h"
#include "model/model_impl.h"
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

/// Owns what one engine needs beside the model; nothing here grows inside a step.
struct Engine::Impl {
  Impl(const Model& the_model, std::optional<Heads> the_heads, Tree the_tree,
       const EngineOptions& asked);

  void reserve();
  void run_step();
  void append_accepted();
  void run_heads();
  void finish_step();
  std::unique_ptr<Sequence> make_sequence(std::span<const int32_t> prompt,
                                          const SamplingParams& params) const;
  Sequence* find(int64_t request_id) const;
  bool drafts(const SamplingParams& params) const { return params.speculative && tree.size() > 1; }
  bool accepts_typically(const SamplingParams& params) const {
    return drafts(params) && options.acceptance_method == AcceptanceMethod::typical;
  }

  Backend& backend() { return *model.impl()->backend; }
  const Llama& llama() { return model.impl()->llama; }
  int top_k() const { return tree.max_rank() + 1; }

  Model model;
  std::optional<Heads> heads;
  Tree tree;  // the largest: buffers and guesses are laid out for it
  EngineOptions options;
  RopeTable rope;
  Workspace workspace;
  KvCache cache;
  std::optional<HeadsWorkspace> heads_workspace;
  Scheduler scheduler;
  std::unique_ptr<Acceptance> acceptance;
  LogprobRecorder logprobs;

  StepPlan plan;
  RowBatch batch;
  std::vector<int32_t> logits_rows;
  std::vector<int32_t> head_rows;
  std::vector<int32_t> head_roots;
  std::vector<PlanEntry*> guessed;
  std::vector<StepOutput> outputs;

  std::map<int64_t, std::unique_ptr<Sequence>> sequences;
  int64_t next_id = 0;
  Metrics totals;  // but for the cache's use by requests not yet forgotten
};

Engine::Impl::Impl(const Model& the_model, std::optional<Heads> the_heads, Tree the_tree,
                   const EngineOptions& asked)
    : model(the_model),
      heads(std::move(the_heads)),
      tree(std::move(the_tree)),
      options(resolve_limits(asked, backend(), model.config(), tree)),
      rope(model.config(), options.max_model_len + tree.depth()),
      workspace(backend(), model.config(), options.max_num_batched_tokens,
                std::min(options.max_num_seqs * tree.size(), options.max_num_batched_tokens)),
      cache(backend(), model.config(), options.max_num_seqs,
            static_cast<int>(options.kv_cache_memory /
                             KvCache::page_bytes(backend(), model.config())),
            options.max_model_len),
      scheduler(options, tree),
      acceptance(make_acceptance(options, tree, workspace.max_logits_rows())),
      logprobs(workspace.max_logits_rows()) {
  if (tree.size() > 1) {
    heads_workspace.emplace(backend(), heads->impl()->heads, options.max_num_seqs, tree.depth(),
                            top_k());
  }
  totals = empty_metrics(tree.depth(), top_k());
  reserve();
}

void Engine::Impl::reserve() {
  plan.entries.resize(options.max_num_seqs);
  for (PlanEntry& entry : plan.entries) {
    entry.accepted_rows.reserve(options.max_num_batched_tokens);
    entry.path.reserve(tree.depth());
  }
  batch.tokens.reserve(options.max_num_batched_tokens);
  batch.positions.reserve(options.max_num_batched_tokens);
  batch.parents.reserve(options.max_num_batched_tokens);
  batch.sequences.reserve(options.max_num_seqs);
  cache.reserve_commits(options.max_num_batched_tokens);
  logits_rows.reserve(workspace.max_logits_rows());
  head_rows.reserve(options.max_num_seqs);
  head_roots.reserve(options.max_num_seqs);
  guessed.reserve(options.max_num_seqs);
  outputs.reserve(options.max_num_seqs);
}

void Engine::Impl::run_step() {
  StepClock clock;
  StepTimes times;
  draft(plan, cache, top_k(), batch, logits_rows);
  times.draft = clock.lap();
  llama().forward(backend(), batch, cache.layout(), rope.view(), workspace);
  logprobs.record_prompts(backend(), llama(), plan, batch.num_rows(), workspace);
  llama().logits(backend(), logits_rows, batch.num_rows(), workspace);
  times.forward = clock.lap();
  const Tensor logits = workspace.logits(static_cast<int64_t>(logits_rows.size()));
  acceptance->accept(backend(), plan, batch, logits);
  times.accept = clock.lap();
  logprobs.record_accepted(backend(), plan, batch, logits);
  append_accepted();
  cache.commit(backend(), workspace);
  finish_step();
  times.commit = clock.lap();
  run_heads();
  times.heads = clock.lap();
  count_pass(plan, times, totals);
}

// A path may be accepted beyond the last token a sequence can have, where it has no pages.
void Engine::Impl::append_accepted() {
  for (const PlanEntry& entry : plan) {
    const auto room = static_cast<size_t>(entry.sequence->max_size - entry.committed);
    const std::span<const int32_t> rows(entry.accepted_rows);
    cache.append(entry.sequence->slot, rows.first(std::min(room, rows.size())));
  }
}

void Engine::Impl::finish_step() {
  for (const PlanEntry& entry : plan) {
    Sequence& sequence = *entry.sequence;
    if (entry.num_logits_rows > 0) {
      scheduler.trees().observe(entry);
      outputs.push_back(record(entry, batch, totals));
    }
    if (options.enable_prefix_caching) cache.publish(sequence.slot, sequence.tokens);
    if (sequence.finished()) scheduler.remove(&sequence, cache);
  }
}

// The heads look at the last accepted row of every sequence that is to draft.
void Engine::Impl::run_heads() {
  const int num_heads = scheduler.choose_heads(plan, guessed);
  if (guessed.empty()) return;
  const Clock::time_point start = Clock::now();
  head_rows.clear();
  head_roots.clear();
  for (const PlanEntry* entry : guessed) {
    head_rows.push_back(entry->accepted_rows.back());
    head_roots.push_back(entry->sequence->tokens.back());
  }
  const auto count = static_cast<int64_t>(head_rows.size());
  const Tensor hidden = workspace.picked(count);
  ops::gather_rows(backend(), hidden, workspace.hidden(batch.num_rows()), head_rows);
  const std::span<const int32_t> guesses =
      heads->impl()->heads.forward(backend(), hidden, head_roots, num_heads, *heads_workspace);
  for (int64_t i = 0; i < count; ++i) {
    Sequence& sequence = *guessed[i]->sequence;
    for (int head = 0; head < num_heads; ++head) {
      const auto from = guesses.begin() + (head * count + i) * top_k();
      std::copy_n(from, top_k(), sequence.guesses.begin() + head * top_k());
    }
    sequence.num_guesses = num_heads;
  }
  scheduler.trees().observe_heads(num_heads, seconds_between(start, Clock::now()));
}

Sequence* Engine::Impl::find(int64_t request_id) const {
  const auto it = sequences.find(request_id);
  return it == sequences.end() ? nullptr : it->second.get();
}

std::unique_ptr<Sequence> Engine::Impl::make_sequence(std::span<const int32_t> prompt,
                                                      const SamplingParams& params) const {
  auto sequence = std::make_unique<Sequence>();
  const auto prompt_size = static_cast<int>(prompt.size());
  sequence->params = params;
  sequence->prompt_size = prompt_size;
  sequence->max_size =
      std::min(options.max_model_len - prompt_size, params.max_tokens) + prompt_size;
  sequence->tokens.reserve(sequence->max_size);
  sequence->tokens.assign(prompt.begin(), prompt.end());
  sequence->drafts = drafts(params);
  sequence->guesses.resize(static_cast<size_t>(tree.depth()) * top_k());
  reserve_logprobs(*sequence, tree.depth() + 1);
  sequence->metrics = empty_metrics(tree.depth(), top_k());
  sequence->metrics.num_requests = 1;
  sequence->metrics.num_prompt_tokens = prompt_size;
  sequence->submitted = Clock::now();
  return sequence;
}

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
