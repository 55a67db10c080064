#include "decode/draft.h"

#include <span>

namespace medusa {
namespace {

void add_prompt_chunk(const PlanEntry& entry, RowBatch& batch) {
  const std::span<const int32_t> tokens(entry.sequence->tokens);
  batch.add_chain(tokens.subspan(entry.committed, entry.num_rows), entry.committed);
}

void add_tree(const PlanEntry& entry, int top_k, RowBatch& batch) {
  const Tree& tree = *entry.tree;
  const Sequence& sequence = *entry.sequence;
  batch.add_row(sequence.tokens.back(), entry.committed, -1);
  for (int node = 1; node < tree.size(); ++node) {
    const int depth = tree.depths()[node];
    batch.add_row(sequence.guesses[(depth - 1) * top_k + tree.ranks()[node]],
                  entry.committed + depth, entry.first_row + tree.parents()[node]);
  }
}

}  // namespace

void draft(StepPlan& plan, const KvCache& cache, int top_k, RowBatch& batch,
           std::vector<int32_t>& logits_rows) {
  batch.clear();
  logits_rows.clear();
  for (PlanEntry& entry : plan) {
    entry.first_row = static_cast<int>(batch.num_rows());
    entry.first_logits_row = static_cast<int>(logits_rows.size());
    const bool chain = entry.is_prefill() || entry.tree->size() == 1;
    batch.sequences.push_back({entry.first_row, entry.num_rows, entry.committed,
                               cache.pages(entry.sequence->slot), chain});
    entry.is_prefill() ? add_prompt_chunk(entry, batch) : add_tree(entry, top_k, batch);
    for (int i = entry.num_rows - entry.num_logits_rows; i < entry.num_rows; ++i) {
      logits_rows.push_back(entry.first_row + i);
    }
  }
}

}  // namespace medusa
