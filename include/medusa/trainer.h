#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "medusa/config.h"
#include "medusa/model.h"

namespace medusa {

/// What is trained, and how (Medusa-1: the backbone is frozen).
struct TrainerOptions {
  int version = 2;  // 1: a projection of its own per head; 2: the backbone's lm_head, frozen
  int num_heads = 4;
  int num_layers = 1;  // ResBlocks per head

  float head_decay = 0.8f;  // head k's loss counts head_decay^k, k from 0
  float learning_rate = 1e-3f;
  double beta1 = 0.9;
  double beta2 = 0.999;
  float epsilon = 1e-8f;
  float weight_decay = 0.0f;   // of matrices, not of biases
  float max_grad_norm = 1.0f;  // over all parameters; 0: no clipping
  int64_t warmup_steps = 0;    // linear; then a cosine that reaches 0 after total_steps
  int64_t total_steps = 1;

  ComputeType compute_type = ComputeType::bfloat16;  // of the products; weights stay f32
  std::string device = "auto";                       // "auto", "cpu": the CPU; "cuda"; "cuda:1"
  int num_threads = 0;                               // of the CPU; 0: those it may use
  uint64_t seed = 0;                                 // of the initial biases
};

/// Rows to learn from: rows[i] of `hidden` (N, hidden_size), f32 or bf16, the backbone's last state
/// after the final norm at some position t. targets (rows, heads): the draft id of the token at
/// t + 2 + k for head k, or -1 where there is none. roots, of grounded heads: the token at t + 1.
struct TrainBatch {
  HostTensor hidden;
  std::span<const int64_t> rows;
  std::span<const int32_t> targets;
  std::span<const int32_t> roots = {};
};

/// Of one batch, before its update.
struct StepReport {
  int64_t step = 0;
  double loss = 0;  // sum over heads of head_decay^k times the mean cross-entropy of its targets
  double grad_norm = 0;  // before clipping
  float learning_rate = 0;
  std::vector<double> head_loss;      // [head] mean cross-entropy
  std::vector<double> head_accuracy;  // [head] share of targets ranked first
};

/// One trained tensor under its name in a heads file ("0.0.linear.weight"). Views the trainer.
struct Parameter {
  std::string name;
  std::vector<int64_t> shape;
  std::span<float> weights;
  std::span<float> gradients;
  std::span<float> mean;    // AdamW's first moment
  std::span<float> square;  // and second
};

/// Trains Medusa heads on cached hidden states. Logits exist for a few rows at a time only. The
/// same calls give the same bits for any number of threads.
class Trainer {
 public:
  /// `lm_head` (draft_vocab, hidden_size) f32: the backbone's rows that the heads may predict,
  /// where V1 heads start and V2 heads stay. Copied. `embedding` (vocab, hidden_size) f32 or bf16,
  /// the backbone's: heads are grounded, their first ResBlock sees the root's row of it beside the
  /// state. Viewed, so it must outlive the trainer. Throws InvalidArgument for options out of
  /// range, DeviceError for a device that this build or machine does not have.
  Trainer(const TrainerOptions& options, const HostTensor& lm_head,
          const std::optional<HostTensor>& embedding = std::nullopt);
  ~Trainer();
  Trainer(Trainer&&) noexcept;

  /// Loss and gradients of one batch, without an update. Throws InvalidArgument for rows, targets
  /// or roots out of range, and when no target is present.
  StepReport backward(const TrainBatch& batch);
  /// backward(), clipping and AdamW. Throws Error, naming the step and changing nothing, when the
  /// loss or the gradient is not finite.
  StepReport step(const TrainBatch& batch);

  /// Per row and head, log p(target) and the target's rank among the draft vocabulary (0: first);
  /// 0 and -1 where there is no target.
  void evaluate(const TrainBatch& batch, std::span<float> log_probs, std::span<int32_t> ranks);

  std::span<const Parameter> parameters() const;
  /// To be called after weights were written through parameters().
  void refresh();
  int64_t num_steps() const;
  void set_num_steps(int64_t steps);
  float learning_rate(int64_t step) const;  // of the step-th step, from 1
  std::string device_name() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace medusa
