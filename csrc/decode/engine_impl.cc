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
      results(backend(), options.max_num_batched_tokens, options.max_num_seqs,
              options.max_num_seqs * tree.depth() * top_k()),
      scheduler(options, tree),
      acceptance(make_acceptance(options, tree, workspace.max_logits_rows())),
      logprobs(workspace.max_logits_rows()),
      ahead(options.max_num_batched_tokens, options.max_num_seqs) {
  if (tree.size() > 1) {
    heads_workspace.emplace(backend(), heads->impl()->heads, options.max_num_seqs, tree.depth(),
                            top_k());
  }
  totals = empty_metrics(tree.depth(), top_k());
  reserve();
}

Engine::Impl::~Impl() {
  try {
    rest();
  } catch (...) {  // the device is lost, which its next user is told
  }
}

// Nobody will ask for the steps to come, and their memory may go.
void Engine::Impl::rest() {
  if (backend().steps_ahead() == 0) return;
  const std::lock_guard lock(model.impl()->mutex);
  backend().rest();
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
  guessed.reserve(options.max_num_seqs);
  outputs.reserve(options.max_num_seqs);
}

// What the device computes is one body: it asks the host for nothing, unless a request needs it.
void Engine::Impl::run_step() {
  StepClock clock;
  draft(plan, cache, top_k(), batch, logits_rows);
  plan_heads();
  StepTimes times{.draft = clock.lap()};
  backend().replay([&] { compute(); });
  times.draft += clock.lap();
  results.receive();
  results.read_decisions(plan, batch);
  logprobs.record_accepted(backend(), plan, batch,
                           workspace.logits(static_cast<int64_t>(logits_rows.size())));
  advance_cache();
  finish_step();
  take_guesses();
  add_device_times(times);
  times.commit += clock.lap();
  count_pass(plan, times, totals);
}

// Before the step is known, so that nothing between acceptance and heads waits for the host.
void Engine::Impl::plan_heads() {
  num_heads = scheduler.choose_heads(plan, guessed);
  int next = 0;
  for (PlanEntry& entry : plan) entry.decision = -1;
  for (PlanEntry* entry : guessed) entry->decision = next++;
  for (PlanEntry& entry : plan) {
    if (entry.decision < 0) entry.decision = next++;
  }
  const auto guesses = num_heads * static_cast<int64_t>(guessed.size());
  results.lay_out(batch.num_rows(), plan.size, guesses, top_k());
}

void Engine::Impl::compute() {
  results.stamp(backend(), StepResults::start);
  llama().forward(backend(), batch, cache.layout(), rope.view(), workspace);
  logprobs.record_prompts(backend(), llama(), plan, batch.num_rows(), workspace);
  const bool decided = decide();
  offer_rows();
  cache.commit(backend(), workspace, results.decisions().kept);
  results.stamp(backend(), StepResults::commit);
  if (!guessed.empty()) run_heads();
  results.stamp(backend(), StepResults::heads);
  results.download(backend());
  if (decided && backend().steps_ahead() > 0 && scheduler.repeats(plan)) offer_next_steps();
}

void Engine::Impl::offer_next_steps() {
  if (LogprobRecorder::wants(plan)) return;
  ahead.offer(backend(), plan, batch, results, cache, top_k(), static_cast<int>(guessed.size()),
              heads ? heads->impl()->heads.device_token_map() : Tensor{});
}

// The back end decides from the lm_head's product itself (true), or the host walks the logits.
bool Engine::Impl::decide() {
  LogitsProduct product = llama().product(backend(), logits_rows, batch.num_rows(), workspace);
  product.wanted = LogprobRecorder::wants(plan);
  const bool decided = acceptance->accept(backend(), plan, batch, product, results);
  if (!decided) {
    ops::linear(backend(), product.logits, product.x, *product.weight, Epilogue::store);
  }
  results.stamp(backend(), StepResults::forward);
  if (!decided) {
    acceptance->walk(backend(), plan, batch, product.logits);
    results.upload_decisions(backend(), plan);
  }
  results.stamp(backend(), StepResults::accept);
  return decided;
}

// A path may be accepted beyond the last token a sequence can have, where it has no pages.
void Engine::Impl::offer_rows() {
  for (const PlanEntry& entry : plan) {
    for (int row = entry.first_row; row < entry.first_row + entry.num_rows; ++row) {
      const int32_t position = batch.positions[static_cast<size_t>(row)];
      if (position < entry.sequence->max_size) cache.offer(entry.sequence->slot, row, position);
    }
  }
}

// The heads look at the last accepted row of every sequence that is to draft.
void Engine::Impl::run_heads() {
  const auto count = static_cast<int64_t>(guessed.size());
  const auto first = [&](Tensor all) { return Tensor{all.data, all.dtype, 1, count}; };
  const Decisions& decisions = results.decisions();
  const Tensor hidden = workspace.picked(count);
  ops::gather_rows(backend(), hidden, workspace.hidden(batch.num_rows()), first(decisions.last));
  heads->impl()->heads.forward(backend(), hidden, first(decisions.roots), num_heads,
                               *heads_workspace, results.guesses());
}

void Engine::Impl::advance_cache() {
  for (const PlanEntry& entry : plan) {
    const int room = entry.sequence->max_size - entry.committed;
    cache.advance(entry.sequence->slot,
                  std::min(room, static_cast<int>(entry.accepted_rows.size())));
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

void Engine::Impl::take_guesses() {
  if (guessed.empty()) return;
  const MedusaHeads& medusa = heads->impl()->heads;
  for (size_t i = 0; i < guessed.size(); ++i) {
    Sequence& sequence = *guessed[i]->sequence;
    for (int head = 0; head < num_heads; ++head) {
      const auto from =
          results.read_guess(head * static_cast<int64_t>(guessed.size()) + static_cast<int64_t>(i));
      std::ranges::transform(from, sequence.guesses.begin() + head * top_k(),
                             [&](int32_t id) { return medusa.token(id); });
    }
    sequence.num_guesses = num_heads;
  }
  scheduler.trees().observe_heads(num_heads,
                                  results.seconds(StepResults::commit, StepResults::heads));
}

// `draft` has the wall time of laying rows out and of the device's step, which is told apart here.
void Engine::Impl::add_device_times(StepTimes& times) const {
  using enum StepResults::Stamp;
  times.forward = results.seconds(start, forward);
  times.accept = results.seconds(forward, accept);
  times.commit = results.seconds(accept, commit);
  times.heads = results.seconds(commit, StepResults::heads);
  times.draft = std::max(0.0, times.draft - results.seconds(start, StepResults::heads));
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
