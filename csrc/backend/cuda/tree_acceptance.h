#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "backend/backend.h"
#include "backend/cuda/kernels.h"
#include "backend/cuda/queue.h"

namespace medusa::cuda {

/// Acceptance that never leaves the device: tokens are drawn at all rows of logits, trees judged by
/// the typical rule where that is asked for, and one kernel decides about every sequence.
class TreeAcceptance {
 public:
  /// Backend::accept: false if a sequence's draws need the host.
  bool accept(Queue& queue, const Decisions& out, Tensor logits, const RowBatch& batch,
              std::span<const AcceptSequence> sequences, const TypicalRule& rule);

 private:
  void lay_out(const RowBatch& batch, std::span<const AcceptSequence> sequences);
  void add_draws(const RowBatch& batch, const AcceptSequence& sequence);
  void add_judged(const RowBatch& batch, const AcceptSequence& sequence);
  const int32_t* draw(Queue& queue, Tensor logits);
  void judge(Queue& queue, Tensor logits, AcceptArgs& args);

  std::vector<AcceptRange> ranges_;
  std::vector<DrawRow> draws_;    // of all rows of logits
  std::vector<JudgeRow> judged_;  // of nodes that have children
  std::vector<int32_t> parents_, depths_;
  Mirror range_mirror_, draw_mirror_, judge_mirror_, token_mirror_, parent_mirror_, depth_mirror_;
  DeviceScratch drawn_, judgement_;
};

}  // namespace medusa::cuda
