#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "medusa/config.h"
#include "medusa/model.h"
#include "medusa/trainer.h"

namespace medusa {

/// How the heads' share of the loss grows with the steps t = 1 ... of a stage.
enum class HeadsSchedule : uint8_t { constant, linear, sine };

/// What the backbone learns from. divergence: KL(teacher || student), the teacher being the model
/// as it was loaded (self-distillation); cross_entropy: the data's next tokens.
enum class BackboneLoss : uint8_t { divergence, cross_entropy };

/// After the warm-up, over what is left of a stage.
enum class RateSchedule : uint8_t { cosine, linear, constant };

/// Steps that are trained alike. Every stage begins with moments of zero.
struct TrainStage {
  int64_t steps = 1;
  bool heads_only = false;
  float learning_rate = 1e-3f;  // the backbone's at its peak
  int64_t warmup_steps = 0;     // linear
  RateSchedule schedule = RateSchedule::cosine;
};

/// Heads and backbone together (Medusa-2): loss = backbone's + heads_coefficient · schedule(t) ·
/// sum over heads of head_decay^k · cross-entropy of head k.
struct JointTrainerOptions {
  /// Of heads and AdamW; rates, warm-up and steps are those of the stages.
  TrainerOptions training;
  std::vector<TrainStage> stages = {{}};
  float heads_learning_rate_multiple = 4;  // of the backbone's rate
  float heads_coefficient = 0.2f;
  HeadsSchedule heads_schedule = HeadsSchedule::constant;
  float heads_schedule_ratio = 1;  // share of a stage's steps over which it grows
  BackboneLoss backbone_loss = BackboneLoss::divergence;

  /// Every tensor of the backbone is trained, instead of adapters: f32 masters, of which products
  /// read copies in the compute type. lora_* count for nothing then.
  bool all_weights = false;
  int lora_rank = 32;
  float lora_alpha = 16;
  float lora_dropout = 0.05f;  // of adapters' inputs, in steps of 1/65536
  /// Of q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj, lm_head; none: no adapter.
  std::vector<std::string> target_modules = {"q_proj",    "k_proj",  "v_proj",    "o_proj",
                                             "gate_proj", "up_proj", "down_proj", "lm_head"};
  int64_t max_rows = 1024;  // of one pass; activations of so many are held
};

/// Documents one after another, at most max_rows tokens. Per row: lm_targets, the next token, or -1
/// where the backbone is to learn nothing; head_targets (rows, heads), the draft id of the token
/// after the next one and so on, or -1.
struct TokenBatch {
  std::span<const int32_t> tokens;
  std::span<const int32_t> lengths;  // of each document; their sum is tokens.size()
  std::span<const int32_t> lm_targets;
  std::span<const int32_t> head_targets;
};

/// Of one step, before its update.
struct JointReport {
  int64_t step = 0;
  double loss = 0;
  double backbone_loss = 0;  // mean over rows with an lm target; 0 while only heads are trained
  double heads_weight = 0;   // heads_coefficient · schedule(step)
  double grad_norm = 0;      // before clipping
  float learning_rate = 0;   // the backbone's
  std::vector<double> head_loss;      // [head] mean cross-entropy
  std::vector<double> head_accuracy;  // [head] share of targets ranked first
};

/// What evaluate() fills, per row; spans of the batch's sizes.
struct JointScores {
  std::span<float> log_prob;       // of the lm target; 0 where there is none
  std::span<float> base_log_prob;  // the same of the model as it was loaded
  std::span<float> divergence;     // KL(loaded || trained)
  std::span<float> head_log_prob;  // (rows, heads)
  std::span<int32_t> head_rank;    // (rows, heads); -1 where there is no target
};

/// Trains LoRA adapters on a frozen backbone of the Llama family, or all of its weights, together
/// with Medusa heads. Frozen weights, and those of the model as it was loaded, stay in the format
/// they are stored in and are widened as products need them; the backbone's activations are
/// computed anew, a layer at a time, on the way back. The same calls give the same bits for any
/// number of threads.
class JointTrainer {
 public:
  /// `tensors` are viewed and must outlive the trainer. `token_map`: tokens that heads may name;
  /// empty: all. `grounded` heads see the root's embedding beside the state. Throws
  /// ModelFormatError naming the tensor, InvalidArgument for options out of range, DeviceError for
  /// a device that this build or machine does not have, or that trains adapters only.
  JointTrainer(const ModelConfig& config, const TensorMap& tensors,
               const JointTrainerOptions& options, std::vector<int32_t> token_map = {},
               bool grounded = false);
  ~JointTrainer();
  JointTrainer(JointTrainer&&) noexcept;

  /// Loss and gradients of a step's batches together, without an update.
  JointReport backward(std::span<const TokenBatch> batches);
  /// backward(), clipping and AdamW. Throws Error, naming the step and changing nothing, when the
  /// loss or the gradient is not finite.
  JointReport step(std::span<const TokenBatch> batches);
  void evaluate(const TokenBatch& batch, const JointScores& scores);
  /// f32 (rows, hidden): states after the final norm.
  std::vector<float> hidden_states(const TokenBatch& batch, bool trained);

  /// Adapters, whose rank is padded with zeros to a multiple of 32, or the backbone's tensors under
  /// Hugging Face's names, a tied lm_head once; then heads.
  std::span<const Parameter> parameters() const;
  /// To be called after weights were written through parameters().
  void refresh();
  int64_t num_steps() const;
  void set_num_steps(int64_t steps);
  float learning_rate(int64_t step) const;  // of the step-th step, from 1
  double heads_weight(int64_t step) const;
  std::string device_name() const;

  /// Bytes that a trainer of these arguments will hold beside `tensors`.
  static size_t memory_estimate(const ModelConfig& config, const JointTrainerOptions& options,
                                int64_t draft_vocab, bool grounded);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace medusa
