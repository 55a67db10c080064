#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "backend/train_backend.h"
#include "medusa/trainer.h"
#include "train/lora.h"
#include "train/parameters.h"

namespace medusa {

/// Throws InvalidArgument naming the option of the heads or of AdamW that is out of range.
void check_head_options(const TrainerOptions& options);

/// Forward and backward of the heads over a chunk of rows. Weights are the master copies in
/// Parameters, narrowed to the compute type C and packed by refresh().
class HeadNetwork {
 public:
  /// `input`: columns of the rows that heads see; a state, and behind it what grounds it. `joint`:
  /// backward() goes on to the states.
  HeadNetwork(TrainBackend& backend, const TrainerOptions& options, const HostTensor& lm_head,
              int64_t input, bool joint = false);

  /// V2: what is added to the projection, over the same rows; not owned, null: nothing.
  void adapt_projection(const Lora* lora) { lora_ = lora; }

  /// V2: the projection is trained with the backbone: `rows` (empty: all) of its lm_head, which
  /// backward() adds to. Not owned.
  void train_projection(const Parameter& lm_head, std::span<const int32_t> rows);

  static constexpr int64_t kMaxRows = 384;  // of a chunk
  static int64_t padded_rows(int64_t rows) { return (rows + 31) / 32 * 32; }

  Parameters& parameters() { return parameters_; }
  void refresh();

  /// Where the chunk's rows go: C (padded_rows(rows), input), zero beyond `rows`.
  Tensor input(int64_t rows) const;
  void begin_chunk(Tensor x);

  /// Head `head`'s cross-entropy on the chunk; its logits' gradient, times `scale`, is kept for
  /// backward(). targets: one draft id a padded row, -1: none.
  void forward(int head, Tensor x, std::span<const int32_t> targets, float scale,
               std::span<TargetScore> scores);
  /// Adds the gradients of the last forward() to Parameters.
  void backward(int head, Tensor x);
  /// Joint: the last backward()'s gradient of the chunk's states, f32 (rows, hidden).
  Tensor state_gradient(int64_t rows) const;
  /// Joint and grounded: of all that the first layer saw, f32 (rows, input).
  Tensor input_gradient(int64_t rows) const;

 private:
  struct Layer {
    Panels forward;   // B = Wᵀ
    Panels backward;  // B = W; of the first layer when joint
  };
  struct Projection {
    Panels forward;   // B = Pᵀ (hidden, vocab)
    Panels backward;  // B = P (vocab, hidden)
  };

  void initialise(const HostTensor& lm_head, uint64_t seed);
  void load_projection(const HostTensor& lm_head, std::span<const int64_t> rows);
  void pack_projection(Projection& projection, Tensor packed);
  void refresh_projection();
  void projection_gradient(int head, Tensor logits_grad);
  Projection& projection(int head) { return projections_[version_ == 1 ? head : 0]; }
  Tensor view(const Buffer& buffer, DType dtype, int64_t rows, int64_t cols) const;
  Tensor state(int layer, int64_t rows) const;  // input of ResBlock `layer`, or the output
  int64_t width(int layer) const { return layer == 0 ? input_cols_ : hidden_; }
  bool passes_down(int layer) const { return layer > 0 || joint_; }
  void add_state_columns(Tensor dh, Tensor dz, const Panels& weight);
  void layer_backward(int head, int layer, Tensor x, Tensor dh);

  TrainBackend& backend_;
  int version_, num_heads_, num_layers_;
  int64_t input_cols_, hidden_, vocab_, padded_vocab_;
  DType dtype_;
  bool joint_;
  const Lora* lora_ = nullptr;
  const Parameter* lm_head_ = nullptr;  // where it is trained
  std::vector<int32_t> lm_head_ids_;    // its rows that count; none: all
  Parameters parameters_;
  std::vector<std::vector<Layer>> layers_;  // [head][layer]
  std::vector<Projection> projections_;     // one, or [head]

  // Workspace of a chunk.
  Buffer input_;                       // C (rows, input)
  Panels input_panels_;                // B = x (rows, input)
  std::vector<Buffer> states_, sums_;  // [layer] C outputs, f32 biased sums
  Buffer logits_, logits_grad_;        // f32, C (rows, padded vocab)
  Buffer state_grad_, sum_grad_;       // f32, C (rows, hidden)
  Buffer input_grad_;                  // f32 (rows, input), joint and grounded
  Buffer transposed_;                  // C (max(vocab, hidden), rows)
  Buffer projection_rows_;             // C (padded vocab, hidden), zero beyond vocab
  Buffer layer_rows_;                  // C (hidden, input)
  Buffer some_rows_;                   // f32 (vocab, hidden): gradients of some of lm_head's rows
  Panels row_panels_;                  // B = a state (rows, hidden)
};

}  // namespace medusa
