#include "decode/engine_impl.h"

#include <algorithm>

#include "backend/ops.h"
#include "decode/draft.h"
#include "decode/limits.h"
#include "decode/record.h"

namespace medusa {

Engine::Impl::Impl(const Model& the_model, std::optional<Heads> the_heads, Tree the_tree,
                   const EngineOptions& asked)
    : model(the_model),
      heads(std::move(the_heads)),
      tree(std::move(the_tree)),
      options(resolve_limits(asked, backend(), model.config(), tree)),
      rope(backend(), model.config(), options.max_model_len + tree.depth()),
      workspace(backend(), model.config(), cache_dtype(), options.max_num_batched_tokens,
                std::min(options.max_num_seqs * tree.size(), options.max_num_batched_tokens)),
      cache(backend(), model.config(), cache_dtype(), options.max_num_seqs,
            static_cast<int>(options.kv_cache_memory /
                             KvCache::page_bytes(model.config(), cache_dtype())),
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

}  // namespace medusa
