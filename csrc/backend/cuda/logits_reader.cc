#include "backend/cuda/logits_reader.h"

#include <algorithm>

namespace medusa::cuda {

DrawRow draw_row(const SampleRow& row) {
  return {row.row, row.seed, row.position, row.temperature};
}

bool needs_host(const SampleRow& row, int64_t vocab) {
  const bool filtered = row.min_p > 0 || row.top_p < 1 || (row.top_k > 0 && row.top_k < vocab);
  return row.rules.change_anything() || (row.temperature > 0 && filtered);
}

void LogitsReader::clear() {
  draws_.clear();
  judged_.clear();
  special_.clear();
  tokens_.clear();
}

void LogitsReader::sample(Queue& queue, std::span<int32_t> ids, Tensor logits,
                          std::span<const SampleRow> rows) {
  clear();
  for (size_t i = 0; i < rows.size(); ++i) {
    if (needs_host(rows[i], logits.cols)) {
      special_.add(i, rows[i].row);
    } else {
      draws_.push_back(draw_row(rows[i]));
    }
  }
  draw(queue, ids, logits, rows);
  special_.sample(host_, ids, fetch_special(queue, logits), rows);
}

void LogitsReader::logprobs(Queue& queue, Tensor logits, std::span<const LogprobRow> rows) {
  clear();
  for (size_t i = 0; i < rows.size(); ++i) special_.add(i, rows[i].row);
  special_.logprobs(host_, fetch_special(queue, logits), rows);
}

void LogitsReader::posterior(Queue& queue, Tensor logits, std::span<const PosteriorRow> rows) {
  clear();
  for (size_t i = 0; i < rows.size(); ++i) {
    if (rows[i].draw.rules.change_anything()) {
      special_.add(i, rows[i].draw.row);
      continue;
    }
    judged_.push_back({draw_row(rows[i].draw), static_cast<int32_t>(tokens_.size()),
                       static_cast<int32_t>(rows[i].tokens.size()),
                       static_cast<int32_t>(judged_.size())});
    tokens_.insert(tokens_.end(), rows[i].tokens.begin(), rows[i].tokens.end());
  }
  judge(queue, logits, rows);
  special_.posterior(host_, fetch_special(queue, logits), rows);
}

// The rows that are not special, in their order.
void LogitsReader::draw(Queue& queue, std::span<int32_t> ids, Tensor logits,
                        std::span<const SampleRow> rows) {
  if (draws_.empty()) return;
  const auto count = static_cast<int64_t>(draws_.size());
  const int64_t bests = sample_bests(count, logits.cols);
  SampleArgs a{};
  a.logits = logits.row<float>(0);
  a.rows = draw_rows_.of(queue, std::span<const DrawRow>(draws_));
  a.ids = queue.results.reserve<int32_t>(queue.stream, count);
  a.best = queue.scratch.reserve<uint64_t>(queue.stream, bests);
  a.tickets = queue.tickets.reserve<int>(queue.stream, count);
  a.num_rows = static_cast<int>(count);
  a.vocab = static_cast<int>(logits.cols);
  cuda::sample(queue.stream, a);
  const size_t bytes = draws_.size() * sizeof(int32_t);
  const auto* drawn = static_cast<const int32_t*>(queue.fetch(a.ids, bytes));
  for (size_t i = 0; i < rows.size(); ++i) {
    if (!special_.holds(i)) ids[i] = *drawn++;
  }
}

// Likewise. Entropies, then log-probabilities, come back in one piece.
void LogitsReader::judge(Queue& queue, Tensor logits, std::span<const PosteriorRow> rows) {
  if (judged_.empty()) return;
  const size_t count = judged_.size() + tokens_.size();
  PosteriorArgs a{};
  a.logits = logits.row<float>(0);
  a.rows = judge_rows_.of(queue, std::span<const JudgeRow>(judged_));
  a.tokens = token_ids_.of(queue, std::span<const int32_t>(tokens_));
  a.entropies = queue.results.reserve<float>(queue.stream, static_cast<int64_t>(count));
  a.log_probs = a.entropies + judged_.size();
  a.num_rows = static_cast<int>(judged_.size());
  a.vocab = static_cast<int>(logits.cols);
  cuda::posterior(queue.stream, a);
  const void* landed = queue.fetch(a.entropies, count * sizeof(float));
  const auto* entropy = static_cast<const float*>(landed);
  const float* log_prob = entropy + judged_.size();
  for (size_t i = 0; i < rows.size(); ++i) {
    if (special_.holds(i)) continue;
    *rows[i].entropy = *entropy++;
    std::copy_n(log_prob, rows[i].tokens.size(), rows[i].log_probs.begin());
    log_prob += rows[i].tokens.size();
  }
}

// The special rows' logits, one after another, on the host.
Tensor LogitsReader::fetch_special(Queue& queue, Tensor logits) {
  const auto& picked = special_.logits_rows();
  const auto count = static_cast<int64_t>(picked.size());
  if (count == 0) return {nullptr, DType::f32, 0, logits.cols};
  auto* rows = queue.results.reserve<float>(queue.stream, count * logits.cols);
  cuda::gather_rows(queue.stream, rows, logits.data,
                    picked_.of(queue, std::span<const int32_t>(picked)), static_cast<int>(count),
                    logits.row_bytes());
  const size_t bytes = static_cast<size_t>(count) * logits.row_bytes();
  const void* host = queue.fetch(rows, bytes);
  return {const_cast<void*>(host), DType::f32, count, logits.cols};
}

}  // namespace medusa::cuda
