#include "medusa/joint_trainer.h"

#include <algorithm>
#include <cmath>

#include "backend/backbone_train_backend.h"
#include "base/check.h"
#include "base/philox.h"
#include "model/load.h"
#include "tensor/quants.h"
#include "train/backbone.h"
#include "train/joint_batch.h"
#include "train/joint_losses.h"
#include "train/joint_options.h"

namespace medusa {
namespace {

const ModelConfig& checked(const ModelConfig& config, const JointTrainerOptions& options) {
  check_config(config);
  check_options(options);
  return config;
}

}  // namespace

struct JointTrainer::Impl {
  Impl(const ModelConfig& config, const TensorMap& tensors, const JointTrainerOptions& o,
       std::vector<int32_t> token_map, bool grounded);

  void initialise();
  void refresh();
  std::vector<PaddedBatch> prepare(std::span<const TokenBatch> batches) const;
  LossScales scales(const std::vector<PaddedBatch>& batches, int64_t step, JointReport& report);
  void accumulate(const PaddedBatch& batch, size_t index, int64_t step, const LossScales& scales,
                  LossSums& sums);
  bool heads_only(int64_t step) const {
    return options.stages[locate(options, step).stage].heads_only;
  }
  /// The backbone is as it was loaded until a stage trains it.
  bool trained(int64_t step) const {
    const auto end = options.stages.begin() + static_cast<int64_t>(locate(options, step).stage);
    return std::any_of(options.stages.begin(), end + 1,
                       [](const TrainStage& s) { return !s.heads_only; });
  }
  void begin_stage();
  Tensor states(const Buffer& buffer, int64_t rows) const {
    return {buffer.data(), backend->compute_dtype(), rows, hidden};
  }
  BatchLimits limits() const {
    return {options.max_rows, vocab, losses.draft_vocab(), options.training.num_heads};
  }

  JointTrainerOptions options;
  int64_t hidden, vocab;
  int64_t steps = 0;
  std::shared_ptr<BackboneTrainBackend> backend;
  Backbone backbone;
  JointLosses losses;
  std::vector<Parameter> all;
  Buffer student, teacher;  // C (max rows, hidden)
  Buffer gradient;          // f32 (max rows, hidden)
};

JointTrainer::Impl::Impl(const ModelConfig& config, const TensorMap& tensors,
                         const JointTrainerOptions& o, std::vector<int32_t> token_map,
                         bool grounded)
    : options(o),
      hidden(config.hidden_size),
      vocab(config.vocab_size),
      backend(make_backbone_train_backend(o.training.device, o.training.compute_type,
                                          o.training.num_threads)),
      backbone(*backend, config, tensors, o),
      losses(*backend, backbone, config, o, std::move(token_map), grounded) {
  const auto bytes = static_cast<size_t>((o.max_rows + 31) / 32 * 32 * hidden) * sizeof(float);
  student = backend->allocate(bytes);
  teacher = backend->allocate(bytes);
  gradient = backend->allocate(bytes);
  for (Parameters* group : {&backbone.parameters(), &losses.heads().parameters()}) {
    all.insert(all.end(), group->all().begin(), group->all().end());
  }
  initialise();
}

// As PEFT's: A uniform ±1/√in, B zero.
void JointTrainer::Impl::initialise() {
  uint32_t tensor = 0;
  for (const Parameter& p : backbone.parameters().all()) {
    ++tensor;
    if (p.name.find(".lora_A.") == std::string::npos) continue;
    const double bound = 1 / std::sqrt(static_cast<double>(p.shape[1]));
    const int64_t count = options.lora_rank * p.shape[1];
    for (int64_t i = 0; i < count; ++i) {
      const uint32_t word =
          philox({static_cast<uint32_t>(i), tensor, 1, 0}, options.training.seed)[0];
      p.weights[static_cast<size_t>(i)] = static_cast<float>(bound * (word * 0x1p-31 - 1));
    }
  }
  refresh();
}

void JointTrainer::Impl::refresh() {
  backbone.refresh();
  losses.refresh();
  backend->wait();
}

std::vector<PaddedBatch> JointTrainer::Impl::prepare(std::span<const TokenBatch> batches) const {
  std::vector<PaddedBatch> out;
  for (const TokenBatch& batch : batches) out.emplace_back(batch, limits());
  return out;
}

// One over the number of a loss's targets in all batches of the step, times its weight.
LossScales JointTrainer::Impl::scales(const std::vector<PaddedBatch>& batches, int64_t step,
                                      JointReport& report) {
  const auto heads = static_cast<size_t>(options.training.num_heads);
  double lm = 0;
  std::vector<double> counts(heads);
  for (const PaddedBatch& batch : batches) {
    for (const int32_t row : batch.active()) {
      lm += batch.lm_target(row) >= 0;
      for (size_t k = 0; k < heads; ++k) {
        counts[k] += batch.head_target(row, static_cast<int64_t>(k)) >= 0;
      }
    }
  }
  LossScales out{.heads = std::vector<double>(heads)};
  if (!heads_only(step) && lm > 0) out.backbone = 1 / lm;
  for (size_t k = 0; k < heads; ++k) {
    const double decay = std::pow(double{options.training.head_decay}, static_cast<double>(k));
    if (counts[k] > 0) out.heads[k] = report.heads_weight * decay / counts[k];
  }
  const bool any =
      out.backbone > 0 || std::any_of(counts.begin(), counts.end(), [](double n) { return n > 0; });
  check(any, "the batches of a step need at least one target");
  return out;
}

void JointTrainer::Impl::accumulate(const PaddedBatch& batch, size_t index, int64_t step,
                                    const LossScales& scales, LossSums& sums) {
  if (batch.active().empty()) return;
  const Documents documents = batch.documents();
  const bool joint = !heads_only(step);
  const bool learns = joint && scales.backbone > 0;
  const Tensor base = states(teacher, batch.rows()), own = states(student, batch.rows());
  if (learns && options.backbone_loss == BackboneLoss::divergence) {
    backbone.forward(base, batch.tokens(), documents, {.trained = false});
  }
  PassOptions pass{.trained = trained(step), .keep = joint};
  pass.noise = {.probability = joint && !options.all_weights ? options.lora_dropout : 0,
                .seed = options.training.seed,
                .step = static_cast<uint32_t>(step),
                .first_row = static_cast<uint32_t>(static_cast<int64_t>(index) * options.max_rows)};
  backbone.forward(own, batch.tokens(), documents, pass);
  Dropout noise = pass.noise;
  noise.site = static_cast<uint32_t>(backbone.sites());
  Tensor grad{gradient.data(), DType::f32, batch.rows(), hidden};
  backend->zero(grad);
  losses.backward(joint ? grad : Tensor{}, own, base, batch, scales, noise, sums);
  if (joint) backbone.backward(grad, batch.tokens(), documents, pass);
  backend->wait();
}

void JointTrainer::Impl::begin_stage() {
  for (const Parameter& p : all) {
    std::fill(p.mean.begin(), p.mean.end(), 0.0f);
    std::fill(p.square.begin(), p.square.end(), 0.0f);
  }
}

JointTrainer::JointTrainer(const ModelConfig& config, const TensorMap& tensors,
                           const JointTrainerOptions& options, std::vector<int32_t> token_map,
                           bool grounded)
    : impl_(std::make_unique<Impl>(checked(config, options), tensors, options, std::move(token_map),
                                   grounded)) {}
JointTrainer::~JointTrainer() = default;
JointTrainer::JointTrainer(JointTrainer&&) noexcept = default;

JointReport JointTrainer::backward(std::span<const TokenBatch> batches) {
  const std::vector<PaddedBatch> padded = impl_->prepare(batches);
  const auto heads = static_cast<size_t>(impl_->options.training.num_heads);
  JointReport report{.step = impl_->steps + 1,
                     .heads_weight = heads_weight(impl_->steps + 1),
                     .learning_rate = learning_rate(impl_->steps + 1),
                     .head_loss = std::vector<double>(heads),
                     .head_accuracy = std::vector<double>(heads)};
  const LossScales scales = impl_->scales(padded, report.step, report);
  impl_->backbone.parameters().zero_gradients(*impl_->backend);
  impl_->losses.heads().parameters().zero_gradients(*impl_->backend);
  LossSums sums{.heads = std::vector<double>(heads), .correct = std::vector<double>(heads)};
  for (size_t i = 0; i < padded.size(); ++i) {
    impl_->accumulate(padded[i], i, report.step, scales, sums);
    double total = sums.backbone;
    for (const double loss : sums.heads) total += loss;
    check<Error>(std::isfinite(total), "step ", report.step, ", batch ", i, " of ", padded.size(),
                 ": the loss is ", total, "; try a lower learning rate");
  }
  report.backbone_loss = scales.backbone * sums.backbone;
  report.loss = report.backbone_loss;
  for (size_t k = 0; k < heads; ++k) {
    const double decay = std::pow(double{impl_->options.training.head_decay}, double(k));
    if (scales.heads[k] == 0) continue;
    const double count = report.heads_weight * decay / scales.heads[k];
    report.loss += scales.heads[k] * sums.heads[k];
    report.head_loss[k] = sums.heads[k] / count;
    report.head_accuracy[k] = sums.correct[k] / count;
  }
  if (impl_->heads_only(report.step)) impl_->backbone.parameters().zero_gradients(*impl_->backend);
  report.grad_norm = std::hypot(impl_->backbone.parameters().grad_norm(*impl_->backend),
                                impl_->losses.heads().parameters().grad_norm(*impl_->backend));
  return report;
}

JointReport JointTrainer::step(std::span<const TokenBatch> batches) {
  const JointReport report = backward(batches);
  check<Error>(std::isfinite(report.grad_norm), "step ", report.step, ": the gradient's norm is ",
               report.grad_norm, " and the loss ", report.loss, "; try a lower learning rate");
  const TrainerOptions& o = impl_->options.training;
  const double limit = o.max_grad_norm;
  const double scale = limit > 0 ? std::min(1.0, limit / (report.grad_norm + 1e-6)) : 1.0;
  const int64_t within = locate(impl_->options, report.step).step;
  if (within == 1) impl_->begin_stage();
  AdamW update{.learning_rate = report.learning_rate,
               .beta1 = o.beta1,
               .beta2 = o.beta2,
               .epsilon = o.epsilon,
               .weight_decay = o.weight_decay,
               .grad_scale = static_cast<float>(scale),
               .step = within};
  if (!impl_->heads_only(report.step)) {
    impl_->backbone.parameters().update(*impl_->backend, update);
    impl_->backbone.refresh();
  }
  update.learning_rate *= impl_->options.heads_learning_rate_multiple;
  impl_->losses.heads().parameters().update(*impl_->backend, update);
  impl_->losses.refresh();
  impl_->backend->wait();
  impl_->steps = report.step;
  return report;
}

void JointTrainer::evaluate(const TokenBatch& batch, const JointScores& scores) {
  const PaddedBatch padded(batch, impl_->limits());
  const size_t rows = batch.tokens.size(), cells = batch.head_targets.size();
  check(scores.log_prob.size() == rows && scores.base_log_prob.size() == rows &&
            scores.divergence.size() == rows && scores.head_log_prob.size() == cells &&
            scores.head_rank.size() == cells,
        "scores must have one element per row, or row and head");
  std::fill(scores.head_rank.begin(), scores.head_rank.end(), -1);
  const Tensor own = impl_->states(impl_->student, padded.rows());
  const Tensor base = impl_->states(impl_->teacher, padded.rows());
  impl_->backbone.forward(base, padded.tokens(), padded.documents(), {.trained = false});
  impl_->backbone.forward(own, padded.tokens(), padded.documents(), {});
  impl_->losses.evaluate(own, base, padded, scores);
}

std::vector<float> JointTrainer::hidden_states(const TokenBatch& batch, bool trained) {
  const PaddedBatch padded(batch, impl_->limits());
  const Tensor own = impl_->states(impl_->student, padded.rows());
  impl_->backbone.forward(own, padded.tokens(), padded.documents(), {.trained = trained});
  impl_->backend->wait();
  std::vector<float> out(batch.tokens.size() * static_cast<size_t>(impl_->hidden));
  for (size_t i = 0; i < out.size(); ++i) {
    out[i] = own.dtype == DType::f32 ? own.row<float>(0)[i] : to_float(own.row<bf16>(0)[i]);
  }
  return out;
}

std::span<const Parameter> JointTrainer::parameters() const { return impl_->all; }
void JointTrainer::refresh() { impl_->refresh(); }
int64_t JointTrainer::num_steps() const { return impl_->steps; }
void JointTrainer::set_num_steps(int64_t steps) {
  const int64_t total = total_steps(impl_->options);
  check(steps >= 0 && steps <= total, "num_steps must be in [0, ", total, "], found ", steps);
  impl_->steps = steps;
}

float JointTrainer::learning_rate(int64_t step) const {
  return medusa::learning_rate(impl_->options, step);
}
double JointTrainer::heads_weight(int64_t step) const {
  return medusa::heads_weight(impl_->options, step);
}

std::string JointTrainer::device_name() const { return impl_->backend->name(); }

}  // namespace medusa
