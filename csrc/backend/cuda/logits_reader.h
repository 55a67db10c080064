#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "backend/backend.h"
#include "backend/cuda/kernels.h"
#include "backend/cuda/queue.h"
#include "backend/cuda/special_rows.h"

namespace medusa::cuda {

/// How the sampling kernels see a row.
DrawRow draw_row(const SampleRow& row);
/// Whether a row's draw needs the host: rules and filters look at the whole distribution.
bool needs_host(const SampleRow& row, int64_t vocab);

/// The verbs that look at logits and answer to the host: kernels for most rows, the CPU's back end
/// for special ones.
class LogitsReader {
 public:
  /// `host` answers for special rows; outlives this.
  explicit LogitsReader(Backend& host) : host_(host) {}

  void sample(Queue& queue, std::span<int32_t> ids, Tensor logits, std::span<const SampleRow> rows);
  void logprobs(Queue& queue, Tensor logits, std::span<const LogprobRow> rows);
  void posterior(Queue& queue, Tensor logits, std::span<const PosteriorRow> rows);

 private:
  void clear();
  void draw(Queue& queue, std::span<int32_t> ids, Tensor logits, std::span<const SampleRow> rows);
  void judge(Queue& queue, Tensor logits, std::span<const PosteriorRow> rows);
  Tensor fetch_special(Queue& queue, Tensor logits);

  Backend& host_;
  Mirror draw_rows_, judge_rows_, token_ids_, picked_;
  std::vector<DrawRow> draws_;
  std::vector<JudgeRow> judged_;
  std::vector<int32_t> tokens_;
  SpecialRows special_;
};

}  // namespace medusa::cuda
