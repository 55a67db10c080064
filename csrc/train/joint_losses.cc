#include "train/joint_losses.h"

#include <algorithm>
#include <numeric>

#include "base/check.h"
#include "tensor/quants.h"

namespace medusa {
namespace {

constexpr int64_t kChunkRows = 256;      // whose logits exist at a time
constexpr int kBackbone = 0, kBase = 1;  // slots of scores
constexpr int kFirstHead = 2;

int64_t padded(int64_t n) { return (n + 31) / 32 * 32; }

}  // namespace

JointLosses::JointLosses(BackboneTrainBackend& backend, Backbone& backbone,
                         const ModelConfig& config, const JointTrainerOptions& options,
                         std::vector<int32_t> token_map, bool grounded)
    : backend_(backend),
      backbone_(backbone),
      dtype_(backend.compute_dtype()),
      loss_(options.backbone_loss),
      hidden_(config.hidden_size),
      vocab_(config.vocab_size),
      padded_vocab_(padded(vocab_)),
      draft_vocab_(token_map.empty() ? vocab_ : static_cast<int64_t>(token_map.size())),
      chunk_rows_(std::min(kChunkRows, padded(options.max_rows))),
      num_heads_(options.training.num_heads),
      grounded_(grounded),
      token_map_(std::move(token_map)) {
  std::vector<bool> seen(static_cast<size_t>(vocab_));
  for (const int32_t id : token_map_) {
    check(id >= 0 && id < vocab_, "token_map: expected 0 to ", vocab_ - 1, ", found ", id);
    check(!seen[static_cast<size_t>(id)], "token_map names ", id, " twice");
    seen[static_cast<size_t>(id)] = true;
  }
  std::vector<float> rows;
  network_ = std::make_unique<HeadNetwork>(backend, options.training, draft_rows(rows),
                                           grounded ? 2 * hidden_ : hidden_, true);
  if (options.training.version == 2 && backbone.lm_head_a() != nullptr) {
    draft_lora_ = std::make_unique<Lora>(backend, backbone.lora_workspace(), *backbone.lm_head_a(),
                                         *backbone.lm_head_b(), backbone.lora_scale(), token_map_);
    network_->adapt_projection(draft_lora_.get());
  }
  if (options.training.version == 2 && backbone.trains_all()) {
    network_->train_projection(*backbone.lm_head().weight.master(), token_map_);
  }
  const auto count = static_cast<size_t>(chunk_rows_);
  targets_.resize(count);
  rows_.resize(count);
  std::iota(rows_.begin(), rows_.end(), 0);
  weights_.resize(count);
  divergences_.resize(count);
  scores_.resize(count * static_cast<size_t>(kFirstHead + num_heads_));
  const auto buffer = [&](DType dtype, int64_t cols) {
    return backend.allocate(static_cast<size_t>(chunk_rows_ * cols) * block_bytes(dtype));
  };
  for (Buffer* b : {&states_, &dropped_, &teacher_}) *b = buffer(dtype_, hidden_);
  for (Buffer* b : {&state_grad_, &dropped_grad_}) *b = buffer(DType::f32, hidden_);
  if (grounded) embedded_ = buffer(DType::f32, hidden_);
  if (grounded) narrow_ = buffer(dtype_, hidden_);
  for (Buffer* b : {&logits_, &teacher_logits_}) *b = buffer(DType::f32, padded_vocab_);
  grad_ = buffer(dtype_, padded_vocab_);
}

HostTensor JointLosses::draft_rows(std::vector<float>& storage) const {
  const FrozenMatrix& w = backbone_.lm_head().weight.stored();
  const size_t bytes =
      static_cast<size_t>(hidden_ / block_elements(w.dtype)) * block_bytes(w.dtype);
  storage.resize(static_cast<size_t>(draft_vocab_ * hidden_));
  for (int64_t i = 0; i < draft_vocab_; ++i) {
    const int64_t id = token_map_.empty() ? i : token_map_[static_cast<size_t>(i)];
    dequantize(storage.data() + i * hidden_,
               static_cast<const char*>(w.data) + static_cast<size_t>(id) * bytes, w.dtype,
               hidden_);
  }
  return {storage.data(), storage.size() * sizeof(float), DType::f32, {draft_vocab_, hidden_}};
}

void JointLosses::refresh() {
  if (draft_lora_) draft_lora_->refresh();
  network_->refresh();
}

template <class Body>
void JointLosses::for_each_chunk(const PaddedBatch& batch, const Body& body) {
  const std::span<const int32_t> all = batch.active();
  const auto most = static_cast<size_t>(chunk_rows_);
  for (size_t first = 0; first < all.size(); first += most) {
    const auto rows = all.subspan(first, std::min(most, all.size() - first));
    body(Chunk{rows, padded(static_cast<int64_t>(rows.size()))}, static_cast<uint32_t>(first));
  }
}

Tensor JointLosses::gather(const Buffer& to, Tensor states, const Chunk& chunk) const {
  const Tensor out = view(to, dtype_, chunk.padded, hidden_);
  backend_.gather(out, 0, states, chunk.rows);
  return out;
}

Tensor JointLosses::head_input(Tensor states, const PaddedBatch& batch, const Chunk& chunk) {
  const Tensor x = network_->input(chunk.padded);
  const auto rows = std::span<const int32_t>(rows_).first(chunk.rows.size());
  backend_.gather(x, 0, states, rows);
  if (!grounded_) return x;
  roots_.clear();
  for (const int32_t row : chunk.rows) roots_.push_back(batch.root(row));
  const auto count = static_cast<int64_t>(rows.size());
  const Tensor wide = view(embedded_, DType::f32, count, hidden_);
  const Tensor narrow = view(narrow_, dtype_, count, hidden_);
  backend_.embed(wide, backbone_.embedding().rows(true), roots_);
  backend_.narrow(narrow, wide);
  backend_.gather(x, hidden_, narrow, rows);
  return x;
}

std::span<const int32_t> JointLosses::lm_targets(const PaddedBatch& batch, const Chunk& chunk) {
  std::fill_n(targets_.begin(), chunk.padded, -1);
  for (size_t i = 0; i < chunk.rows.size(); ++i) targets_[i] = batch.lm_target(chunk.rows[i]);
  return {targets_.data(), static_cast<size_t>(chunk.padded)};
}

std::span<const int32_t> JointLosses::head_targets(const PaddedBatch& batch, const Chunk& chunk,
                                                   int head) {
  std::fill_n(targets_.begin(), chunk.padded, -1);
  for (size_t i = 0; i < chunk.rows.size(); ++i) {
    targets_[i] = batch.head_target(chunk.rows[i], head);
  }
  return {targets_.data(), static_cast<size_t>(chunk.padded)};
}

Tensor JointLosses::logits(const Buffer& to, Tensor x, Tensor dropped, bool trained) {
  const Tensor out = view(to, DType::f32, x.rows, padded_vocab_);
  backend_.linear(out, x, backbone_.lm_head().weight.product(trained), false);
  if (trained && backbone_.lm_head().lora) backbone_.lm_head().lora->forward(out, dropped);
  return out;
}

void JointLosses::backward(Tensor grad, Tensor states, Tensor teacher, const PaddedBatch& batch,
                           const LossScales& scales, const Dropout& noise, LossSums& sums) {
  for_each_chunk(batch, [&](const Chunk& chunk, uint32_t first) {
    const Tensor x = gather(states_, states, chunk);
    const Tensor dx = view(state_grad_, DType::f32, chunk.padded, hidden_);
    backend_.zero(dx);
    Dropout own = noise;
    own.first_row += first;
    if (scales.backbone > 0) {
      lm_backward(dx, x, teacher, batch, chunk, scales.backbone, own);
    }
    heads_backward(dx, x, batch, chunk, scales);
    if (grad.data != nullptr) backend_.scatter(grad, dx, chunk.rows, false);
    backend_.wait();
    add_sums(sums, scales, chunk);
  });
}

void JointLosses::add_sums(LossSums& sums, const LossScales& scales, const Chunk& chunk) const {
  const bool divergence = loss_ == BackboneLoss::divergence;
  for (size_t i = 0; i < chunk.rows.size(); ++i) {
    if (scales.backbone > 0) {
      sums.backbone += divergence ? divergences_[i] : -double{score(kBackbone, i).log_prob};
    }
    for (size_t k = 0; k < scales.heads.size(); ++k) {
      if (scales.heads[k] == 0) continue;
      const TargetScore& own = score(kFirstHead + static_cast<int>(k), i);
      sums.heads[k] -= own.log_prob;
      sums.correct[k] += own.rank == 0;
    }
  }
}

void JointLosses::lm_backward(Tensor dx, Tensor x, Tensor teacher, const PaddedBatch& batch,
                              const Chunk& chunk, double scale, const Dropout& noise) {
  Tensor dropped = x;
  if (noise.probability > 0 && backbone_.lm_head().lora) {
    dropped = view(dropped_, dtype_, x.rows, hidden_);
    backend_.dropout(dropped, x, noise);
  }
  const Tensor student = logits(logits_, x, dropped, true);
  const Tensor grad = view(grad_, dtype_, x.rows, padded_vocab_);
  const std::span<const int32_t> targets = lm_targets(batch, chunk);
  const auto factor = static_cast<float>(scale);
  if (loss_ == BackboneLoss::cross_entropy) {
    backend_.cross_entropy(grad, scores(kBackbone), student, vocab_, targets, factor);
  } else {
    for (size_t i = 0; i < targets.size(); ++i) weights_[i] = targets[i] >= 0 ? factor : 0;
    const Tensor base = gather(teacher_, teacher, chunk);
    backend_.divergence(grad, divergences_, student, logits(teacher_logits_, base, base, false),
                        vocab_, {weights_.data(), targets.size()});
  }
  lm_gradient(dx, grad, x, dropped, noise);
}

void JointLosses::lm_gradient(Tensor dx, Tensor grad, Tensor x, Tensor dropped,
                              const Dropout& noise) {
  const AdaptedLinear& lm_head = backbone_.lm_head();
  backend_.linear_backward(dx, grad, lm_head.weight.product(true), true);
  if (backbone_.trains_all()) backbone_.lm_head_gradient(grad, x);
  if (!lm_head.lora) return;
  if (dropped.data == x.data) return lm_head.lora->backward(dx, grad, x, true);
  const Tensor behind = view(dropped_grad_, DType::f32, x.rows, hidden_);
  lm_head.lora->backward(behind, grad, dropped, false);
  backend_.add_dropped(dx, behind, noise);
}

void JointLosses::heads_backward(Tensor dx, Tensor states, const PaddedBatch& batch,
                                 const Chunk& chunk, const LossScales& scales) {
  const Tensor x = head_input(states, batch, chunk);
  network_->begin_chunk(x);
  for (int k = 0; k < num_heads_; ++k) {
    const auto head = static_cast<size_t>(k);
    if (scales.heads[head] == 0) continue;
    network_->forward(k, x, head_targets(batch, chunk, k), static_cast<float>(scales.heads[head]),
                      scores(kFirstHead + k));
    network_->backward(k, x);
    backend_.add(dx, network_->state_gradient(x.rows));
    if (grounded_ && backbone_.trains_all()) add_root_gradient(chunk);
  }
}

// Of the last head, into the embeddings of the tokens that ground it.
void JointLosses::add_root_gradient(const Chunk& chunk) {
  const auto rows = static_cast<int64_t>(chunk.rows.size());
  backbone_.embedding_gradient(network_->input_gradient(rows), hidden_, roots_);
}

void JointLosses::evaluate(Tensor states, Tensor teacher, const PaddedBatch& batch,
                           const JointScores& scores) {
  for_each_chunk(batch, [&](const Chunk& chunk, uint32_t) {
    const Tensor x = gather(states_, states, chunk);
    evaluate_lm(x, gather(teacher_, teacher, chunk), batch, chunk, scores);
    evaluate_heads(x, batch, chunk, scores);
  });
}

// Scores overwrite logits, so those that the divergence needs are computed again.
void JointLosses::evaluate_lm(Tensor x, Tensor teacher, const PaddedBatch& batch,
                              const Chunk& chunk, const JointScores& out) {
  const Tensor grad = view(grad_, dtype_, x.rows, padded_vocab_);
  const std::span<const int32_t> targets = lm_targets(batch, chunk);
  for (const bool trained : {true, false}) {
    const Tensor rows = trained ? x : teacher;
    backend_.cross_entropy(grad, scores(trained ? kBackbone : kBase),
                           logits(logits_, rows, rows, trained), vocab_, targets, 1);
  }
  for (size_t i = 0; i < targets.size(); ++i) weights_[i] = targets[i] >= 0 ? 1.0f : 0.0f;
  backend_.divergence(grad, divergences_, logits(logits_, x, x, true),
                      logits(teacher_logits_, teacher, teacher, false), vocab_,
                      {weights_.data(), targets.size()});
  backend_.wait();
  for (size_t i = 0; i < chunk.rows.size(); ++i) {
    const auto row = static_cast<size_t>(chunk.rows[i]);
    out.log_prob[row] = score(kBackbone, i).log_prob;
    out.base_log_prob[row] = score(kBase, i).log_prob;
    out.divergence[row] = static_cast<float>(divergences_[i]);
  }
}

void JointLosses::evaluate_heads(Tensor states, const PaddedBatch& batch, const Chunk& chunk,
                                 const JointScores& out) {
  const Tensor x = head_input(states, batch, chunk);
  for (int k = 0; k < num_heads_; ++k) {
    network_->forward(k, x, head_targets(batch, chunk, k), 1, scores(kFirstHead + k));
  }
  backend_.wait();
  for (int k = 0; k < num_heads_; ++k) {
    for (size_t i = 0; i < chunk.rows.size(); ++i) {
      const auto at = static_cast<size_t>(chunk.rows[i] * num_heads_ + k);
      const TargetScore& own = score(kFirstHead + k, i);
      out.head_log_prob[at] = own.log_prob;
      out.head_rank[at] = own.rank;
    }
  }
}

}  // namespace medusa
