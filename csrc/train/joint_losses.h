#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "train/backbone.h"
#include "train/head_network.h"
#include "train/joint_batch.h"

namespace medusa {

/// What multiplies each loss of a row: 0 where it is not trained.
struct LossScales {
  double backbone = 0;
  std::vector<double> heads;
};

/// Unscaled sums over rows.
struct LossSums {
  double backbone = 0;
  std::vector<double> heads, correct;
};

/// Losses of states after the final norm, and their gradients: of the backbone, which projects by
/// lm_head, and of the heads. Logits exist for a few rows at a time.
class JointLosses {
 public:
  JointLosses(BackboneTrainBackend& backend, Backbone& backbone, const ModelConfig& config,
              const JointTrainerOptions& options, std::vector<int32_t> token_map, bool grounded);

  HeadNetwork& heads() { return *network_; }
  int64_t draft_vocab() const { return draft_vocab_; }
  void refresh();

  /// Adds to `sums` and to the gradients of heads and lm_head; grad f32 (rows, hidden), zero where
  /// a row has no target, becomes that of `states` C unless it has no data. `teacher` C: the states
  /// of the model as it was loaded, or no data.
  void backward(Tensor grad, Tensor states, Tensor teacher, const PaddedBatch& batch,
                const LossScales& scales, const Dropout& noise, LossSums& sums);
  void evaluate(Tensor states, Tensor teacher, const PaddedBatch& batch, const JointScores& scores);

 private:
  struct Chunk {
    std::span<const int32_t> rows;
    int64_t padded;
  };
  template <class Body>
  void for_each_chunk(const PaddedBatch& batch, const Body& body);
  HostTensor draft_rows(std::vector<float>& storage) const;
  Tensor gather(const Buffer& to, Tensor states, const Chunk& chunk) const;
  Tensor head_input(Tensor states, const PaddedBatch& batch, const Chunk& chunk);
  Tensor logits(const Buffer& to, Tensor x, Tensor dropped, bool trained);
  void lm_backward(Tensor dx, Tensor x, Tensor teacher, const PaddedBatch& batch,
                   const Chunk& chunk, double scale, const Dropout& noise);
  void lm_gradient(Tensor dx, Tensor grad, Tensor x, Tensor dropped, const Dropout& noise);
  void heads_backward(Tensor dx, Tensor states, const PaddedBatch& batch, const Chunk& chunk,
                      const LossScales& scales);
  void add_sums(LossSums& sums, const LossScales& scales, const Chunk& chunk) const;
  void add_root_gradient(const Chunk& chunk);
  void evaluate_lm(Tensor x, Tensor teacher, const PaddedBatch& batch, const Chunk& chunk,
                   const JointScores& scores);
  void evaluate_heads(Tensor states, const PaddedBatch& batch, const Chunk& chunk,
                      const JointScores& scores);
  std::span<const int32_t> lm_targets(const PaddedBatch& batch, const Chunk& chunk);
  std::span<const int32_t> head_targets(const PaddedBatch& batch, const Chunk& chunk, int head);
  std::span<TargetScore> scores(int slot) {
    return std::span(scores_).subspan(static_cast<size_t>(slot * chunk_rows_),
                                      static_cast<size_t>(chunk_rows_));
  }
  const TargetScore& score(int slot, size_t row) const {
    return scores_[static_cast<size_t>(slot * chunk_rows_) + row];
  }
  Tensor view(const Buffer& buffer, DType dtype, int64_t rows, int64_t cols) const {
    return {buffer.data(), dtype, rows, cols};
  }

  BackboneTrainBackend& backend_;
  Backbone& backbone_;
  DType dtype_;
  BackboneLoss loss_;
  int64_t hidden_, vocab_, padded_vocab_, draft_vocab_, chunk_rows_;
  int num_heads_;
  bool grounded_;
  std::vector<int32_t> token_map_;
  std::unique_ptr<HeadNetwork> network_;
  std::unique_ptr<Lora> draft_lora_;  // V2: lm_head's adapter over the draft vocabulary

  std::vector<int32_t> targets_, rows_;  // rows_: 0, 1, 2, ...
  std::vector<int32_t> roots_;           // of the chunk's rows, where heads are grounded
  std::vector<float> weights_;
  std::vector<double> divergences_;
  std::vector<TargetScore> scores_;    // [slot] of a chunk: 0 and 1 the backbone's, then the heads'
  Buffer states_, dropped_, teacher_;  // C (chunk rows, hidden)
  Buffer state_grad_, dropped_grad_;   // f32 (chunk rows, hidden)
  Buffer embedded_, narrow_;           // f32, C (chunk rows, hidden) of roots
  Buffer logits_, teacher_logits_, grad_;  // f32, f32, C (chunk rows, padded vocab)
};

}  // namespace medusa
