#pragma once

#include <cstdint>
#include <span>

#include "backend/backend.h"
#include "backend/cuda/kernels.h"
#include "backend/cuda/queue.h"

namespace medusa::cuda {

/// Products whose outputs are logits, reduced where they are computed: no matrix of logits is
/// written unless it is wanted.
class LogitsProducts {
 public:
  /// For rows that are judged, in the device's memory.
  struct Judged {
    const int32_t* tokens = nullptr;
    float* token_logits = nullptr;  // scratch, as tokens
    float* log_probs = nullptr;     // as tokens
    float* entropies = nullptr;
  };
  /// The ids drawn at every row of the product, on the device until the next call; what `rows`
  /// judge goes to `out`.
  const int32_t* choose(Queue& queue, const LogitsProduct& product, std::span<const LogitsRow> rows,
                        const Judged& out);
  /// The rows of choose() in the running replay; null: there was none.
  LogitsRow* rows(const Queue& queue) const { return rows_.twin<LogitsRow>(queue); }
  /// Backend::linear_top_k.
  void top_k(Queue& queue, Tensor values, Tensor ids, Tensor x, std::span<const Weight> weights);

 private:
  Mirror rows_;
  DeviceScratch keys_, sums_, ids_;
};

/// A product as kernels see it, but for where its outputs go; with memory for its splits.
LinearArgs linear_args(Queue& queue, Tensor x, const Weight& weight, Finish finish);

}  // namespace medusa::cuda
