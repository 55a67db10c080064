#include "decode/accept.h"

#include "backend/ops.h"
#include "decode/sampler.h"

namespace medusa {

int child_with_token(const Tree& tree, int node, std::span<const int32_t> tokens, int32_t token) {
  const int first = tree.first_child(node);
  for (int child = first; child < first + tree.num_children(node); ++child) {
    if (tokens[child] == token) return child;
  }
  return -1;
}

AcceptSequence Acceptance::sequence_of(const PlanEntry& entry) const {
  const bool judged = typical() && entry.sequence->drafts;
  const int position = entry.committed + entry.num_rows - entry.num_logits_rows + 1;
  return {.first_row = entry.first_row,
          .num_rows = entry.num_rows,
          .num_logits_rows = entry.num_logits_rows,
          .first_logits_row = entry.first_logits_row,
          .tree = !entry.is_prefill(),
          .typical = judged,
          .draw = sample_row(*entry.sequence, entry.first_logits_row, position, {})};
}

bool Acceptance::accept(Backend& backend, const StepPlan& plan, const RowBatch& batch,
                        const LogitsProduct& product, const StepResults& out) {
  if (!pure()) return false;
  sequences_.resize(static_cast<size_t>(plan.size));
  for (const PlanEntry& entry : plan) {
    sequences_[static_cast<size_t>(entry.decision)] = sequence_of(entry);
  }
  return ops::accept(backend, out.decisions(), product, batch, sequences_, rule_);
}

ExactAcceptance::ExactAcceptance(int max_num_seqs) : Acceptance(max_num_seqs, {}) {
  cursors_.reserve(max_num_seqs);
  rows_.reserve(max_num_seqs);
  drawn_.reserve(max_num_seqs);
}

void ExactAcceptance::walk(Backend& backend, StepPlan& plan, const RowBatch& batch, Tensor logits) {
  start(plan);
  while (!cursors_.empty()) {
    draw(backend, logits);
    descend(batch);
  }
}

void ExactAcceptance::start(StepPlan& plan) {
  cursors_.clear();
  for (PlanEntry& entry : plan) {
    entry.accept_first(entry.is_prefill() ? entry.num_rows : 1);
    if (entry.num_logits_rows > 0) cursors_.push_back({&entry, 0});
  }
}

void ExactAcceptance::draw(Backend& backend, Tensor logits) {
  rows_.clear();
  for (const Cursor& cursor : cursors_) {
    const PlanEntry& entry = *cursor.entry;
    const int position = entry.committed + static_cast<int>(entry.accepted_rows.size());
    rows_.push_back(
        sample_row(*entry.sequence, entry.first_logits_row + cursor.node, position, entry.path));
  }
  drawn_.resize(rows_.size());
  ops::sample(backend, drawn_, logits, rows_);
}

int ExactAcceptance::next_node(const PlanEntry& entry, int node, std::span<const int32_t> tokens,
                               int32_t drawn) const {
  return child_with_token(*entry.tree, node, tokens, drawn);
}

void ExactAcceptance::descend(const RowBatch& batch) {
  size_t kept = 0;
  for (size_t i = 0; i < cursors_.size(); ++i) {
    const auto [entry, node] = cursors_[i];
    int child = -1;
    if (!entry->is_prefill()) {
      const std::span tokens(batch.tokens.data() + entry->first_row,
                             static_cast<size_t>(entry->num_rows));
      child = next_node(*entry, node, tokens, drawn_[i]);
    }
    if (child < 0) {
      entry->next_root = drawn_[i];
      continue;
    }
    entry->accepted_rows.push_back(entry->first_row + child);
    entry->path.push_back(batch.tokens[entry->first_row + child]);
    cursors_[kept++] = {entry, child};
  }
  cursors_.resize(kept);
}

}  // namespace medusa
