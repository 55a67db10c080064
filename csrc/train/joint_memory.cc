#include <algorithm>

#include "medusa/joint_trainer.h"
#include "train/backbone.h"
#include "train/backbone_tensors.h"

namespace medusa {
namespace {

int64_t padded(int64_t n) { return (n + 31) / 32 * 32; }

struct Sizes {
  int64_t hidden, inner, q, kv, vocab, rows, chunk, c;  // c: bytes of the compute type
};

Sizes sizes_of(const ModelConfig& m, const JointTrainerOptions& o) {
  const int64_t rows = padded(o.max_rows);
  return {m.hidden_size,
          m.intermediate_size,
          int64_t{m.num_attention_heads} * m.head_dim,
          int64_t{m.num_key_value_heads} * m.head_dim,
          padded(m.vocab_size),
          rows,
          std::min<int64_t>(256, rows),
          o.training.compute_type == ComputeType::float32 ? 4 : 2};
}

// Weights, gradients and moments in f32. Of adapters two packed copies in C, of all weights one
// where C is not f32, and panels of a product's input. Biases and heads' norms are left out.
int64_t backbone(const ModelConfig& m, const JointTrainerOptions& o, const Sizes& s) {
  int64_t elements = 0;
  for (const auto& [name, shape] : trained_tensors(m, {}, o)) {
    elements += shape[0] * (shape.size() == 2 ? shape[1] : 1);
  }
  if (!o.all_weights) return elements * (16 + 2 * s.c);
  return elements * (s.c == 4 ? 16 : 18) + s.rows * std::max({s.hidden, s.inner, s.q}) * s.c;
}

// As HeadNetwork holds them.
int64_t heads(const JointTrainerOptions& o, int64_t draft_vocab, int64_t input, const Sizes& s) {
  constexpr int64_t kRows = 384;
  const TrainerOptions& t = o.training;
  const bool learns = t.version == 1 || o.all_weights;  // the projection
  const int64_t vocab = padded(draft_vocab), projections = t.version == 1 ? t.num_heads : 1;
  const int64_t blocks = t.num_heads * (input + (t.num_layers - 1) * s.hidden) * s.hidden;
  const int64_t trained = blocks + (t.version == 1 ? projections * draft_vocab * s.hidden : 0);
  const int64_t packed = 2 * s.c * (blocks + projections * vocab * s.hidden);
  const int64_t chunk = kRows * (vocab * (4 + s.c) + 2 * input * (s.c + 2) +
                                 t.num_layers * s.hidden * (4 + s.c) + 8 * s.hidden);
  const int64_t turned = learns ? std::max(vocab, s.hidden) : s.hidden;
  const int64_t some = t.version == 2 && o.all_weights ? 4 * draft_vocab * s.hidden : 0;
  return 16 * trained + some + packed + chunk + kRows * turned * s.c + vocab * s.hidden * s.c;
}

// As Backbone holds them.
int64_t activations(int64_t layers, const Sizes& s) {
  const int64_t wide = std::max({s.hidden, s.inner, s.q});
  const int64_t f32 = (layers + 2) * s.hidden + 3 * s.q + 5 * s.kv + 2 * s.inner + 2 * wide;
  const int64_t narrow = 2 * (s.hidden + s.q + s.inner) + 4 * wide;
  return s.rows * (4 * f32 + s.c * narrow + 12 * s.hidden);
}

// Frozen weights, which a device holds in C; the CPU reads them where they are.
int64_t held(const ModelConfig& m, const JointTrainerOptions& o, const Sizes& s) {
  if (o.training.device == "auto" || o.training.device == "cpu") return 0;
  const int64_t layer = s.hidden * (2 * s.q + 2 * s.kv + 3 * s.inner);
  const int64_t tables = (m.tie_word_embeddings ? 1 : 2) * s.vocab * s.hidden;
  return s.c * (m.num_hidden_layers * layer + tables);
}

}  // namespace

size_t JointTrainer::memory_estimate(const ModelConfig& config, const JointTrainerOptions& options,
                                     int64_t draft_vocab, bool grounded) {
  const Sizes s = sizes_of(config, options);
  const int64_t losses = s.chunk * (s.vocab * (8 + s.c) + s.hidden * (12 + 3 * s.c));
  const int64_t input = grounded ? 2 * s.hidden : s.hidden;
  return static_cast<size_t>(backbone(config, options, s) + heads(options, draft_vocab, input, s) +
                             activations(config.num_hidden_layers, s) + held(config, options, s) +
                             losses);
}

}  // namespace medusa
