#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "backend/backend.h"
#include "backend/cuda/advance.h"
#include "backend/cuda/kernels.h"
#include "backend/cuda/logits_products.h"
#include "backend/cuda/queue.h"

namespace medusa::cuda {

/// Acceptance that never leaves the device: the product that makes the logits draws a token at each
/// of their rows and judges trees where the typical rule is asked for, and one kernel decides about
/// every sequence.
class TreeAcceptance {
 public:
  /// Backend::accept: false if a sequence's draws need the host.
  bool accept(Queue& queue, const Decisions& out, const LogitsProduct& product,
              const RowBatch& batch, std::span<const AcceptSequence> sequences,
              const TypicalRule& rule);
  /// Its part of a step's inputs.
  void add_inputs(const Queue& queue, AdvanceArgs& to) const;

 private:
  void lay_out(const RowBatch& batch, std::span<const AcceptSequence> sequences);
  void ask_draws(const RowBatch& batch, const AcceptSequence& sequence);
  void ask_judgement(const RowBatch& batch, const AcceptSequence& sequence);
  void choose(Queue& queue, const LogitsProduct& product, AcceptArgs& args);

  LogitsProducts products_;
  std::vector<AcceptRange> ranges_;
  std::vector<LogitsRow> rows_;  // of logits
  std::vector<int32_t> parents_, depths_;
  Mirror range_mirror_, token_mirror_, parent_mirror_, depth_mirror_;
  DeviceScratch judgement_;
};

}  // namespace medusa::cuda
