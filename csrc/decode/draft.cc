#include "decode/draft.h"

namespace medusa {
namespace {

void clear(RowBatch& batch) {
  batch.tokens.clear();
  batch.positions.clear();
  batch.parents.clear();
  batch.sequences.clear();
}

void add_row(RowBatch& batch, int32_t token, int position, int parent) {
  batch.tokens.push_back(token);
  batch.positions.push_back(position);
  batch.parents.push_back(parent);
}

void add_prompt_chunk(const PlanEntry& entry, RowBatch& batch) {
  for (int i = 0; i < entry.num_rows; ++i) {
    const int position = entry.committed + i;
    add_row(batch, entry.sequence->tokens[position], position,
            i == 0 ? -1 : entry.first_row + i - 1);
  }
}

void add_tree(const PlanEntry& entry, int top_k, RowBatch& batch) {
  const Tree& tree = *entry.tree;
  const Sequence& sequence = *entry.sequence;
  add_row(batch, sequence.tokens.back(), entry.committed, -1);
  for (int node = 1; node < tree.size(); ++node) {
    const int depth = tree.depths()[node];
    add_row(batch, sequence.guesses[(depth - 1) * top_k + tree.ranks()[node]],
            entry.committed + depth, entry.first_row + tree.parents()[node]);
  }
}

}  // namespace

void draft(StepPlan& plan, const KvCache& cache, int top_k, RowBatch& batch,
           std::vector<int32_t>& logits_rows) {
  clear(batch);
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
