#include "backend/cuda/tree_acceptance.h"

#include <algorithm>

#include "backend/cuda/logits_reader.h"

namespace medusa::cuda {
namespace {

// Of a root alone there is nothing to judge.
AcceptKind kind_of(const AcceptSequence& s) {
  if (!s.tree) return AcceptKind::chain;
  return s.typical && s.num_rows > 1 ? AcceptKind::typical : AcceptKind::exact;
}

}  // namespace

bool TreeAcceptance::accept(Queue& queue, const Decisions& out, const LogitsProduct& product,
                            const RowBatch& batch, std::span<const AcceptSequence> sequences,
                            const TypicalRule& rule) {
  const int64_t vocab = product.weight->out_features;
  const auto special = [&](const AcceptSequence& s) { return needs_host(s.draw, vocab); };
  if (std::ranges::any_of(sequences, special)) return false;
  rows_.assign(static_cast<size_t>(product.x.rows), {});
  lay_out(batch, sequences);
  AcceptArgs a{};
  a.sequences = range_mirror_.of(queue, std::span<const AcceptRange>(ranges_));
  a.tokens = token_mirror_.of(queue, std::span<const int32_t>(batch.tokens));
  a.parents = parent_mirror_.of(queue, std::span<const int32_t>(parents_));
  a.depths = depth_mirror_.of(queue, std::span<const int32_t>(depths_));
  choose(queue, product, a);
  a.log_threshold = rule.log_threshold;
  a.log_alpha = rule.log_alpha;
  a.kept = out.kept.row<int32_t>(0);
  a.last = out.last.row<int32_t>(0);
  a.roots = out.roots.row<int32_t>(0);
  a.count = static_cast<int>(sequences.size());
  cuda::accept(queue.stream, a);
  return true;
}

void TreeAcceptance::add_inputs(const Queue& queue, AdvanceArgs& to) const {
  to.tokens[1] = token_mirror_.twin<int32_t>(queue);
  to.draws = products_.rows(queue);
}

void TreeAcceptance::lay_out(const RowBatch& batch, std::span<const AcceptSequence> sequences) {
  ranges_.clear();
  parents_.assign(batch.parents.begin(), batch.parents.end());
  depths_.assign(batch.positions.begin(), batch.positions.end());
  for (const AcceptSequence& s : sequences) {
    const auto first = static_cast<size_t>(s.first_row);
    const int root = batch.positions[first];
    for (size_t row = first; row < first + static_cast<size_t>(s.num_rows); ++row) {
      parents_[row] = parents_[row] < 0 ? -1 : parents_[row] - s.first_row;
      depths_[row] -= root;
    }
    ranges_.push_back({s.first_row, s.num_rows, s.first_logits_row, s.num_logits_rows, kind_of(s)});
    ask_draws(batch, s);
    if (s.tree && s.typical) ask_judgement(batch, s);
  }
}

void TreeAcceptance::ask_draws(const RowBatch& batch, const AcceptSequence& s) {
  const int skipped = s.num_rows - s.num_logits_rows;
  for (int i = 0; i < s.num_logits_rows; ++i) {
    rows_[static_cast<size_t>(s.first_logits_row + i)] = {
        .seed = s.draw.seed,
        .position = batch.positions[static_cast<size_t>(s.first_row + skipped + i)] + 1,
        .temperature = s.typical ? 0 : s.draw.temperature};
  }
}

// Children are consecutive rows.
void TreeAcceptance::ask_judgement(const RowBatch& batch, const AcceptSequence& s) {
  const int end = s.first_row + s.num_rows;
  for (int child = s.first_row + 1; child < end;) {
    const int parent = batch.parents[static_cast<size_t>(child)], first = child;
    while (child < end && batch.parents[static_cast<size_t>(child)] == parent) ++child;
    LogitsRow& row = rows_[static_cast<size_t>(s.first_logits_row + parent - s.first_row)];
    row.judged_temperature = s.draw.temperature;
    row.first_token = first;
    row.num_tokens = child - first;
    row.entropy = parent;
  }
}

// What is drawn at all rows of logits; of nodes that have children log-probabilities, entropies
// and scores, each (rows).
void TreeAcceptance::choose(Queue& queue, const LogitsProduct& product, AcceptArgs& a) {
  const auto rows = static_cast<int64_t>(parents_.size());
  LogitsProducts::Judged judged{.tokens = a.tokens};
  judged.log_probs = judgement_.reserve<float>(queue.stream, 4 * rows);
  judged.entropies = judged.log_probs + rows;
  judged.token_logits = judged.entropies + 2 * rows;
  a.log_probs = judged.log_probs;
  a.entropies = judged.entropies;
  a.scores = judged.entropies + rows;
  a.drawn = products_.choose(queue, product, rows_, judged);
}

}  // namespace medusa::cuda
