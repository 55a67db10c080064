#include "decode/scheduler.h"

#include <algorithm>
#include <numeric>

#include "decode/prompt_share.h"

namespace medusa {
namespace {

// A drafted token beyond the sequence's last would be thrown away. `coming`: tokens that it gets
// before.
bool can_draft(const Sequence& sequence, int coming = 0) {
  return sequence.drafts && sequence.max_size - (sequence.size() + coming) > 1;
}

int missing_pages(const Sequence& sequence, const KvCache& cache) {
  return std::max(KvCache::pages_for(sequence.size()) - cache.held_pages(sequence.slot), 0);
}

int positions_after(const Sequence& sequence, const Tree& tree) {
  return std::min(sequence.size() + tree.depth(), sequence.max_size);
}

}  // namespace

Scheduler::Scheduler(const EngineOptions& options, const Tree& tree)
    : max_rows_(options.max_num_batched_tokens),
      share_prefixes_(options.enable_prefix_caching),
      trees_(options, tree),
      free_slots_(options.max_num_seqs) {
  std::iota(free_slots_.rbegin(), free_slots_.rend(), 0);
  drafting_.reserve(options.max_num_seqs);
}

void Scheduler::enqueue(Sequence* sequence) { waiting_.push_back(sequence); }

void Scheduler::free_slot(Sequence& sequence, KvCache& cache) {
  cache.release(sequence.slot);
  free_slots_.push_back(sequence.slot);
  sequence.slot = -1;
}

void Scheduler::remove(Sequence* sequence, KvCache& cache) {
  if (sequence->slot < 0) {
    waiting_.remove(sequence);
    return;
  }
  running_.remove(sequence);
  free_slot(*sequence, cache);
}

// Pages that running sequences lack for the tokens they have.
int Scheduler::claimed_pages(const KvCache& cache) const {
  int pages = 0;
  for (const Sequence* sequence : running_) pages += missing_pages(*sequence, cache);
  return pages;
}

void Scheduler::admit(KvCache& cache) {
  while (!waiting_.empty() && !free_slots_.empty()) {
    if (!start(*waiting_.front(), cache)) return;
    running_.splice(running_.end(), waiting_, waiting_.begin());
  }
}

// With room for all it has now: the prompt, or after a preemption prompt and answer.
bool Scheduler::start(Sequence& sequence, KvCache& cache) {
  sequence.slot = free_slots_.back();
  free_slots_.pop_back();
  adopt(sequence, cache);
  if (claimed_pages(cache) + missing_pages(sequence, cache) <= cache.free_pages()) return true;
  sequence.metrics.num_cached_tokens -= cache.committed(sequence.slot);
  free_slot(sequence, cache);
  return false;
}

// A prompt whose log probabilities are asked for must be computed, once.
bool Scheduler::may_adopt(const Sequence& sequence) const {
  return share_prefixes_ && !sequence.lacks_prompt_logprobs();
}

// All but the last token, which must be computed to know the next.
void Scheduler::adopt(Sequence& sequence, KvCache& cache) const {
  if (!may_adopt(sequence)) return;
  const std::span<const int32_t> tokens(sequence.tokens);
  const int before = cache.committed(sequence.slot);
  const int after = cache.adopt(sequence.slot, tokens.first(tokens.size() - 1));
  sequence.metrics.num_cached_tokens += after - before;
}

bool Scheduler::is_decoding(const Sequence& sequence, const KvCache& cache) const {
  return cache.committed(sequence.slot) + 1 == sequence.size() &&
         sequence.size() > sequence.prompt_size;
}

void Scheduler::plan(KvCache& cache, StepPlan& plan) {
  plan.clear();
  if (!waiting_.empty()) give_back_ahead(cache);
  admit(cache);
  claim_pages(cache);
  choose_trees(cache);
  add_decoding(cache, plan);
  int rows = 0;
  for (const PlanEntry& entry : plan) rows += entry.num_rows;
  add_prompts(cache, max_rows_ - rows, plan);
}

// Prompts keep at least half of the rows, if they need them.
void Scheduler::choose_trees(const KvCache& cache) {
  drafting_.clear();
  int decoding = 0, missing = 0;
  for (Sequence* sequence : running_) {
    if (!is_decoding(*sequence, cache)) {
      if (!sequence->waits_for_twin) missing += sequence->size() - cache.committed(sequence->slot);
      continue;
    }
    ++decoding;
    sequence->rung = 0;
    if (sequence->num_guesses > 0 && can_draft(*sequence)) drafting_.push_back(sequence);
  }
  const int prompts = std::min(missing, max_rows_ - decoding);
  trees_.choose(drafting_, {.decoding = decoding,
                            .prompt_rows = prompts,
                            .max_rows = max_rows_ - std::min(prompts, max_rows_ / 2)});
}

// A page more for drafts is welcome, but nobody is stopped for it.
const Tree& Scheduler::fitting_tree(Sequence& sequence, KvCache& cache) const {
  while (sequence.rung > 0 &&
         !cache.reserve(sequence.slot, positions_after(sequence, trees_.tree(sequence.rung)))) {
    --sequence.rung;
  }
  return trees_.tree(sequence.rung);
}

void Scheduler::add_decoding(KvCache& cache, StepPlan& plan) {
  for (Sequence* sequence : running_) {
    if (!is_decoding(*sequence, cache)) continue;
    PlanEntry& entry = plan.add();
    entry.sequence = sequence;
    entry.tree = &fitting_tree(*sequence, cache);
    entry.committed = cache.committed(sequence->slot);
    entry.num_rows = entry.num_logits_rows = entry.tree->size();
  }
}

// In order of arrival: for the root of who decodes, for the next chunk of who has a prompt.
void Scheduler::claim_pages(KvCache& cache) {
  for (auto it = running_.begin(); it != running_.end(); ++it) {
    Sequence& sequence = **it;
    int positions = sequence.size();
    sequence.waits_for_twin = false;
    if (!is_decoding(sequence, cache)) {
      adopt(sequence, cache);
      sequence.waits_for_twin = has_twin_before(it, cache);
      const int chunk = sequence.waits_for_twin ? 0 : max_rows_;
      positions = std::min(positions, cache.committed(sequence.slot) + chunk);
    }
    if (!make_room(sequence, positions, cache)) return;
  }
}

// False if `sequence` itself, the youngest, had to go; older ones keep what they have, and the
// oldest always finds room: the cache holds one sequence of max_model_len.
bool Scheduler::make_room(Sequence& sequence, int positions, KvCache& cache) {
  if (cache.reserve(sequence.slot, positions)) return true;
  give_back_ahead(cache);
  while (!cache.reserve(sequence.slot, positions)) {
    const bool itself = running_.back() == &sequence;
    preempt_youngest(cache);
    if (itself) return false;
  }
  return true;
}

void Scheduler::give_back_ahead(KvCache& cache) {
  for (Sequence* sequence : running_) {
    if (sequence->reserves_ahead) cache.trim(sequence->slot, sequence->size());
    sequence->reserves_ahead = false;
  }
}

// Somebody older is about to compute the same page: to wait and adopt it costs nothing.
bool Scheduler::has_twin_before(Running it, const KvCache& cache) const {
  const Sequence& sequence = **it;
  const std::span<const int32_t> tokens(sequence.tokens);
  if (!may_adopt(sequence) || cache.committed(sequence.slot) % kPageSize != 0) return false;
  return std::any_of(running_.begin(), Running(it), [&](const Sequence* other) {
    return !is_decoding(*other, cache) &&
           cache.same_next_page(sequence.slot, tokens.first(tokens.size() - 1), other->slot,
                                other->tokens);
  });
}

void Scheduler::preempt_youngest(KvCache& cache) {
  Sequence& sequence = *running_.back();
  free_slot(sequence, cache);
  sequence.num_guesses = 0;
  ++sequence.metrics.num_preemptions;
  waiting_.splice(waiting_.begin(), running_, std::prev(running_.end()));
}

bool Scheduler::repeats(const StepPlan& plan) const {
  if (trees_.adaptive() || !waiting_.empty()) return false;
  const auto same = [&](const PlanEntry& e) { return e.tree == &trees_.tree(e.sequence->rung); };
  return static_cast<size_t>(plan.size) == running_.size() && std::ranges::all_of(plan, same);
}

void Scheduler::add_prompts(const KvCache& cache, int rows_left, StepPlan& plan) const {
  const int first = plan.size;
  for (Sequence* sequence : running_) {
    if (is_decoding(*sequence, cache) || sequence->waits_for_twin) continue;
    PlanEntry& entry = plan.add();
    entry.sequence = sequence;
    entry.tree = nullptr;
    entry.committed = cache.committed(sequence->slot);
    entry.num_rows = 0;
  }
  share_rows(plan.from(first), rows_left);
  for (PlanEntry& entry : plan.from(first)) {
    const bool last = entry.committed + entry.num_rows == entry.sequence->size();
    entry.num_logits_rows = last ? 1 : 0;
  }
  plan.drop_empty(first);
}

int Scheduler::choose_heads(StepPlan& plan, std::vector<PlanEntry*>& guessed) {
  drafting_.clear();
  guessed.clear();
  int decoding = 0, prompt_rows = 0;
  for (const PlanEntry& entry : plan) {
    Sequence& sequence = *entry.sequence;
    sequence.num_guesses = sequence.rung = 0;
    if (entry.num_logits_rows == 0) prompt_rows += entry.num_rows;
    if (entry.num_logits_rows == 0) continue;
    ++decoding;
    if (can_draft(sequence, 1)) drafting_.push_back(&sequence);
  }
  const int num_heads = trees_.choose_heads(
      drafting_, {.decoding = decoding, .prompt_rows = prompt_rows, .max_rows = max_rows_});
  for (PlanEntry& entry : plan) {
    if (entry.sequence->rung > 0) guessed.push_back(&entry);
  }
  return num_heads;
}

}  // namespace medusa
