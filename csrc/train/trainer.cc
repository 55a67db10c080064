#include "medusa/trainer.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "backend/train_backend.h"
#include "base/check.h"
#include "train/head_network.h"

namespace medusa {
namespace {

void check_options(const TrainerOptions& o, const HostTensor& lm_head) {
  check_head_options(o);
  check(o.learning_rate > 0, "learning_rate must be positive, found ", o.learning_rate);
  check(o.total_steps >= 1, "total_steps must be positive, found ", o.total_steps);
  check(o.warmup_steps >= 0 && o.warmup_steps < o.total_steps, "warmup_steps must be in [0, ",
        o.total_steps, "), found ", o.warmup_steps);
  check(lm_head.dtype == DType::f32 && lm_head.shape.size() == 2, "lm_head must be an f32 matrix");
  check(lm_head.shape[0] >= 1 && lm_head.shape[1] >= 32 && lm_head.shape[1] % 32 == 0,
        "lm_head must be (draft_vocab, hidden_size) with hidden_size a multiple of 32, found (",
        lm_head.shape[0], ", ", lm_head.shape[1], ")");
  check(lm_head.bytes == static_cast<size_t>(lm_head.shape[0] * lm_head.shape[1]) * sizeof(float),
        "lm_head has ", lm_head.bytes, " bytes for its shape");
}

// f32 or bf16 (N, columns), whole.
void check_rows(const char* what, const HostTensor& x, int64_t columns) {
  check(x.shape.size() == 2 && x.shape[1] == columns &&
            (x.dtype == DType::f32 || x.dtype == DType::bf16),
        what, " must be f32 or bf16 (N, ", columns, ")");
  check(x.bytes == static_cast<size_t>(x.shape[0] * columns) * block_bytes(x.dtype), what, " has ",
        x.bytes, " bytes for its shape");
}

}  // namespace

struct Trainer::Impl {
  Impl(const TrainerOptions& o, const HostTensor& lm_head,
       const std::optional<HostTensor>& the_embedding)
      : options(o),
        embedding(the_embedding),
        hidden(lm_head.shape[1]),
        vocab(lm_head.shape[0]),
        backend(make_train_backend(o.device, o.compute_type, o.num_threads)),
        network(*backend, o, lm_head, embedding ? 2 * hidden : hidden) {
    if (embedding) check_rows("embedding", *embedding, hidden);
    scores.resize(static_cast<size_t>(o.num_heads * HeadNetwork::kMaxRows));
    backend->wait();
  }

  /// Of a head on a chunk.
  std::span<TargetScore> head_scores(int head, int64_t rows) {
    return {scores.data() + head * HeadNetwork::kMaxRows, static_cast<size_t>(rows)};
  }
  void check_batch(const TrainBatch& batch) const;
  void check_roots(const TrainBatch& batch) const;
  /// Rows first .. first + rows - 1 of the batch: states, and behind them the roots' embeddings.
  Tensor gather(const TrainBatch& batch, int64_t first, int64_t rows);
  /// Runs `body(x, chunk_rows, first)` on every chunk of the batch.
  template <class Body>
  void for_each_chunk(const TrainBatch& batch, Body body);
  std::span<const int32_t> head_targets(const TrainBatch& batch, int head, int64_t first,
                                        int64_t rows, int64_t padded);
  std::vector<int64_t> count_targets(const TrainBatch& batch) const;
  std::vector<double> loss_scales(const std::vector<int64_t>& counts) const;
  void add_scores(StepReport& report, int head, int64_t rows, const std::vector<double>& scales,
                  const std::vector<int64_t>& counts);

  TrainerOptions options;
  std::optional<HostTensor> embedding;  // grounded heads
  int64_t hidden, vocab;
  int64_t steps = 0;
  std::shared_ptr<TrainBackend> backend;
  HeadNetwork network;
  std::vector<int32_t> targets = std::vector<int32_t>(HeadNetwork::kMaxRows);
  std::vector<TargetScore> scores;  // [head][row of a chunk]
};

void Trainer::Impl::check_batch(const TrainBatch& b) const {
  const HostTensor& h = b.hidden;
  check_rows("hidden", h, hidden);
  check(b.targets.size() == b.rows.size() * static_cast<size_t>(options.num_heads),
        "targets must be (rows, heads) = (", b.rows.size(), ", ", options.num_heads, "), found ",
        b.targets.size(), " elements");
  for (int64_t row : b.rows) {
    check(row >= 0 && row < h.shape[0], "row ", row, " is outside [0, ", h.shape[0], ")");
  }
  for (int32_t target : b.targets) {
    check(target >= -1 && target < vocab, "target ", target, " is outside [-1, ", vocab, ")");
  }
  check_roots(b);
}

void Trainer::Impl::check_roots(const TrainBatch& b) const {
  const size_t expected = embedding ? b.rows.size() : 0;
  check(b.roots.size() == expected, "roots of ", embedding ? "grounded" : "plain",
        " heads: expected ", expected, ", found ", b.roots.size());
  for (int32_t root : b.roots) {
    check(root >= 0 && root < embedding->shape[0], "root ", root, " is outside [0, ",
          embedding->shape[0], ")");
  }
}

Tensor Trainer::Impl::gather(const TrainBatch& batch, int64_t first, int64_t rows) {
  const Tensor x = network.input(rows);
  const auto at = static_cast<size_t>(first), count = static_cast<size_t>(rows);
  backend->load_rows(x, 0, batch.hidden, batch.rows.subspan(at, count));
  if (embedding) {
    const auto roots = batch.roots.subspan(at, count);
    backend->load_rows(x, hidden, *embedding, std::vector<int64_t>(roots.begin(), roots.end()));
  }
  return x;
}

template <class Body>
void Trainer::Impl::for_each_chunk(const TrainBatch& batch, Body body) {
  const int64_t total = static_cast<int64_t>(batch.rows.size());
  for (int64_t first = 0; first < total; first += HeadNetwork::kMaxRows) {
    const int64_t rows = std::min(HeadNetwork::kMaxRows, total - first);
    body(gather(batch, first, rows), rows, first);
  }
}

std::span<const int32_t> Trainer::Impl::head_targets(const TrainBatch& batch, int head,
                                                     int64_t first, int64_t rows, int64_t padded) {
  std::fill_n(targets.begin(), padded, -1);
  for (int64_t i = 0; i < rows; ++i) {
    targets[static_cast<size_t>(i)] =
        batch.targets[static_cast<size_t>((first + i) * options.num_heads + head)];
  }
  return {targets.data(), static_cast<size_t>(padded)};
}

std::vector<int64_t> Trainer::Impl::count_targets(const TrainBatch& batch) const {
  const size_t heads = static_cast<size_t>(options.num_heads);
  std::vector<int64_t> counts(heads);
  for (size_t i = 0; i < batch.targets.size(); ++i) counts[i % heads] += batch.targets[i] >= 0;
  check(std::any_of(counts.begin(), counts.end(), [](int64_t n) { return n > 0; }),
        "a batch needs at least one target");
  return counts;
}

// head_decay^k over the number of head k's targets.
std::vector<double> Trainer::Impl::loss_scales(const std::vector<int64_t>& counts) const {
  std::vector<double> scales(counts.size());
  for (size_t k = 0; k < counts.size(); ++k) {
    const double decay = std::pow(double{options.head_decay}, static_cast<double>(k));
    if (counts[k] > 0) scales[k] = decay / static_cast<double>(counts[k]);
  }
  return scales;
}

void Trainer::Impl::add_scores(StepReport& report, int head, int64_t rows,
                               const std::vector<double>& scales,
                               const std::vector<int64_t>& counts) {
  const auto k = static_cast<size_t>(head);
  if (counts[k] == 0) return;
  for (const TargetScore& score : head_scores(head, rows)) {
    report.loss -= scales[k] * score.log_prob;
    report.head_loss[k] -= score.log_prob / static_cast<double>(counts[k]);
    report.head_accuracy[k] += (score.rank == 0) / static_cast<double>(counts[k]);
  }
}

Trainer::Trainer(const TrainerOptions& options, const HostTensor& lm_head,
                 const std::optional<HostTensor>& embedding)
    : impl_(
          (check_options(options, lm_head), std::make_unique<Impl>(options, lm_head, embedding))) {}
Trainer::~Trainer() = default;
Trainer::Trainer(Trainer&&) noexcept = default;

StepReport Trainer::backward(const TrainBatch& batch) {
  impl_->check_batch(batch);
  const int heads = impl_->options.num_heads;
  const std::vector<int64_t> counts = impl_->count_targets(batch);
  StepReport report{.step = impl_->steps + 1,
                    .learning_rate = learning_rate(impl_->steps + 1),
                    .head_loss = std::vector<double>(static_cast<size_t>(heads)),
                    .head_accuracy = std::vector<double>(static_cast<size_t>(heads))};
  const std::vector<double> scales = impl_->loss_scales(counts);
  impl_->network.parameters().zero_gradients(*impl_->backend);
  impl_->for_each_chunk(batch, [&](Tensor x, int64_t rows, int64_t first) {
    impl_->network.begin_chunk(x);
    for (int k = 0; k < heads; ++k) {
      const size_t head = static_cast<size_t>(k);
      if (counts[head] == 0) continue;
      impl_->network.forward(k, x, impl_->head_targets(batch, k, first, rows, x.rows),
                             static_cast<float>(scales[head]), impl_->head_scores(k, x.rows));
      impl_->network.backward(k, x);
    }
    impl_->backend->wait();
    for (int k = 0; k < heads; ++k) impl_->add_scores(report, k, rows, scales, counts);
  });
  report.grad_norm = impl_->network.parameters().grad_norm(*impl_->backend);
  return report;
}

StepReport Trainer::step(const TrainBatch& batch) {
  const StepReport report = backward(batch);
  check<Error>(std::isfinite(report.loss) && std::isfinite(report.grad_norm), "step ", report.step,
               ": the loss is ", report.loss, " and the gradient's norm ", report.grad_norm,
               "; try a lower learning rate");
  const TrainerOptions& o = impl_->options;
  const double limit = o.max_grad_norm;
  const double scale = limit > 0 ? std::min(1.0, limit / (report.grad_norm + 1e-6)) : 1.0;
  impl_->network.parameters().update(*impl_->backend, {.learning_rate = report.learning_rate,
                                                       .beta1 = o.beta1,
                                                       .beta2 = o.beta2,
                                                       .epsilon = o.epsilon,
                                                       .weight_decay = o.weight_decay,
                                                       .grad_scale = static_cast<float>(scale),
                                                       .step = report.step});
  impl_->network.refresh();
  impl_->backend->wait();
  impl_->steps = report.step;
  return report;
}

void Trainer::evaluate(const TrainBatch& batch, std::span<float> log_probs,
                       std::span<int32_t> ranks) {
  impl_->check_batch(batch);
  check(log_probs.size() == batch.targets.size() && ranks.size() == batch.targets.size(),
        "log_probs and ranks must have one element per target");
  const int heads = impl_->options.num_heads;
  impl_->for_each_chunk(batch, [&](Tensor x, int64_t rows, int64_t first) {
    for (int k = 0; k < heads; ++k) {
      impl_->network.forward(k, x, impl_->head_targets(batch, k, first, rows, x.rows), 1.0f,
                             impl_->head_scores(k, x.rows));
    }
    impl_->backend->wait();
    for (int k = 0; k < heads; ++k) {
      for (int64_t i = 0; i < rows; ++i) {
        const TargetScore& score = impl_->head_scores(k, rows)[static_cast<size_t>(i)];
        const size_t at = static_cast<size_t>((first + i) * heads + k);
        log_probs[at] = score.log_prob;
        ranks[at] = score.rank;
      }
    }
  });
}

std::span<const Parameter> Trainer::parameters() const { return impl_->network.parameters().all(); }
void Trainer::refresh() {
  impl_->network.refresh();
  impl_->backend->wait();
}
int64_t Trainer::num_steps() const { return impl_->steps; }
void Trainer::set_num_steps(int64_t steps) {
  check(steps >= 0 && steps <= impl_->options.total_steps, "num_steps must be in [0, ",
        impl_->options.total_steps, "], found ", steps);
  impl_->steps = steps;
}

float Trainer::learning_rate(int64_t step) const {
  const TrainerOptions& o = impl_->options;
  if (step <= o.warmup_steps) {
    return static_cast<float>(double{o.learning_rate} * static_cast<double>(step) /
                              static_cast<double>(o.warmup_steps));
  }
  const double progress = static_cast<double>(step - o.warmup_steps) /
                          static_cast<double>(o.total_steps - o.warmup_steps);
  return static_cast<float>(o.learning_rate * 0.5 *
                            (1 + std::cos(std::numbers::pi * std::min(1.0, progress))));
}

std::string Trainer::device_name() const { return impl_->backend->name(); }

}  // namespace medusa
