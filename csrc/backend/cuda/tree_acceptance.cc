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

bool TreeAcceptance::accept(Queue& queue, const Decisions& out, Tensor logits,
                            const RowBatch& batch, std::span<const AcceptSequence> sequences,
                            const TypicalRule& rule) {
  const auto special = [&](const AcceptSequence& s) { return needs_host(s.draw, logits.cols); };
  if (std::ranges::any_of(sequences, special)) return false;
  lay_out(batch, sequences);
  AcceptArgs a{};
  a.sequences = range_mirror_.of(queue, std::span<const AcceptRange>(ranges_));
  a.tokens = token_mirror_.of(queue, std::span<const int32_t>(batch.tokens));
  a.parents = parent_mirror_.of(queue, std::span<const int32_t>(parents_));
  a.depths = depth_mirror_.of(queue, std::span<const int32_t>(depths_));
  a.drawn = draw(queue, logits);
  judge(queue, logits, a);
  a.log_threshold = rule.log_threshold;
  a.log_alpha = rule.log_alpha;
  a.kept = out.kept.row<int32_t>(0);
  a.last = out.last.row<int32_t>(0);
  a.roots = out.roots.row<int32_t>(0);
  a.count = static_cast<int>(sequences.size());
  cuda::accept(queue.stream, a);
  return true;
}

void TreeAcceptance::lay_out(const RowBatch& batch, std::span<const AcceptSequence> sequences) {
  ranges_.clear();
  draws_.clear();
  judged_.clear();
  parents_.assign(batch.parents.begin(), batch.parents.end());
  depths_.assign(batch.positions.begin(), batch.positions.end());
  for (const AcceptSequence& s : sequences) {
    const auto first = static_cast<size_t>(s.first_row);
    const int root = batch.positions[first];
    for (size_t row = first; row < first + static_cast<size_t>(s.num_rows); ++row) {
      parents_[row] = parents_[row] < 0 ? -1 : parents_[row] - s.first_row;
      depths_[row] -= root;
    }
    ranges_.push_back({s.first_row, s.num_rows, static_cast<int32_t>(draws_.size()),
                       s.num_logits_rows, kind_of(s)});
    add_draws(batch, s);
    if (s.tree && s.typical) add_judged(batch, s);
  }
}

void TreeAcceptance::add_draws(const RowBatch& batch, const AcceptSequence& s) {
  const int skipped = s.num_rows - s.num_logits_rows;
  for (int i = 0; i < s.num_logits_rows; ++i) {
    DrawRow row = draw_row(s.draw);
    row.row = s.first_logits_row + i;
    row.position = batch.positions[static_cast<size_t>(s.first_row + skipped + i)] + 1;
    if (s.typical) row.temperature = 0;
    draws_.push_back(row);
  }
}

// Children are consecutive rows.
void TreeAcceptance::add_judged(const RowBatch& batch, const AcceptSequence& s) {
  const int end = s.first_row + s.num_rows;
  for (int child = s.first_row + 1; child < end;) {
    const int parent = batch.parents[static_cast<size_t>(child)], first = child;
    while (child < end && batch.parents[static_cast<size_t>(child)] == parent) ++child;
    DrawRow row = draw_row(s.draw);
    row.row = s.first_logits_row + parent - s.first_row;
    judged_.push_back({row, first, child - first, parent});
  }
}

const int32_t* TreeAcceptance::draw(Queue& queue, Tensor logits) {
  const auto count = static_cast<int64_t>(draws_.size());
  if (count == 0) return nullptr;
  SampleArgs a{};
  a.logits = logits.row<float>(0);
  a.rows = draw_mirror_.of(queue, std::span<const DrawRow>(draws_));
  a.ids = drawn_.reserve<int32_t>(queue.stream, count);
  a.best = queue.scratch.reserve<uint64_t>(queue.stream, sample_bests(count, logits.cols));
  a.tickets = queue.tickets.reserve<int>(queue.stream, count);
  a.num_rows = static_cast<int>(count);
  a.vocab = static_cast<int>(logits.cols);
  cuda::sample(queue.stream, a);
  return a.ids;
}

// Log-probabilities, entropies and scores, each (rows).
void TreeAcceptance::judge(Queue& queue, Tensor logits, AcceptArgs& args) {
  if (judged_.empty()) return;
  const auto rows = static_cast<int64_t>(parents_.size());
  PosteriorArgs a{};
  a.logits = logits.row<float>(0);
  a.rows = judge_mirror_.of(queue, std::span<const JudgeRow>(judged_));
  a.tokens = args.tokens;
  a.log_probs = judgement_.reserve<float>(queue.stream, 3 * rows);
  a.entropies = a.log_probs + rows;
  a.num_rows = static_cast<int>(judged_.size());
  a.vocab = static_cast<int>(logits.cols);
  cuda::posterior(queue.stream, a);
  args.log_probs = a.log_probs;
  args.entropies = a.entropies;
  args.scores = a.entropies + rows;
}

}  // namespace medusa::cuda
