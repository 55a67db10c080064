#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "backend/backbone_train_backend.h"
#include "medusa/joint_trainer.h"
#include "train/backbone_weights.h"
#include "train/lora.h"
#include "train/parameters.h"

namespace medusa {

/// How a pass runs. Its dropouts, if noise.probability is not 0, have the sites from noise.site on.
struct PassOptions {
  bool trained = true;  // or as it was loaded
  bool keep = false;    // what backward() needs
  Dropout noise = {};
};

/// Forward and backward of a Llama-family backbone: its weights are frozen and have adapters, or
/// all are trained. Of the way forward only every layer's input is kept.
class Backbone {
 public:
  Backbone(BackboneTrainBackend& backend, const ModelConfig& config, const TensorMap& tensors,
           const JointTrainerOptions& options);

  Parameters& parameters() { return parameters_; }
  void refresh();
  const BackboneMatrix& embedding() const { return embedding_; }
  bool trains_all() const { return trains_all_; }
  const AdaptedLinear& lm_head() const { return lm_head_; }
  const Parameter* lm_head_a() const { return lm_head_a_; }  // null: no adapter
  const Parameter* lm_head_b() const { return lm_head_b_; }
  float lora_scale() const { return scale_; }
  LoraWorkspace& lora_workspace() { return workspace_; }
  int sites() const { return 4 * static_cast<int>(layers_.size()); }  // of dropout

  /// States after the final norm, C (rows, hidden).
  void forward(Tensor out, std::span<const int32_t> tokens, const Documents& documents,
               const PassOptions& pass);
  /// Of the last forward() that kept; dout f32 (rows, hidden) is overwritten.
  void backward(Tensor dout, std::span<const int32_t> tokens, const Documents& documents,
                const PassOptions& pass);

  // Where all weights are trained: what losses add to their gradients. dy C (rows, padded
  // vocab), x C (rows, hidden), dx f32 (rows, hidden).
  void lm_head_gradient(Tensor dy, Tensor x);
  void embedding_gradient(Tensor dx, int64_t first_column, std::span<const int32_t> tokens);

 private:
  struct Layer {
    BackboneVector input_norm, post_attention_norm;
    BackboneVector q_norm, k_norm;  // or empty
    AdaptedLinear q, k, v, o, gate, up, down;
  };
  /// A product's input, and what its adapters see of it.
  struct Input {
    Tensor whole, dropped;
  };
  /// One product of several that share an input, and its output's gradient in C.
  struct Branch {
    const AdaptedLinear* linear;
    Tensor dy;
  };

  AdaptedLinear load(const TensorMap& tensors, const std::string& module, int64_t out, int64_t in);
  BackboneMatrix load_matrix(const TensorMap& tensors, const std::string& name, int64_t out,
                             int64_t in) const;
  BackboneVector load_vector(const TensorMap& tensors, const std::string& name, int64_t size) const;
  BackboneVector find_vector(const TensorMap& tensors, const std::string& name, int64_t size) const;
  Layer load_layer(const TensorMap& tensors, int index);
  void attach(AdaptedLinear& linear, const std::string& module);
  const Parameter* parameter(const std::string& name) const;
  void make_rope_table();
  Tensor f32(const Buffer& buffer, int64_t rows, int64_t cols) const {
    return {buffer.data(), DType::f32, rows, cols};
  }
  Tensor compute(const Buffer& buffer, int64_t rows, int64_t cols) const {
    return {buffer.data(), dtype_, rows, cols};
  }
  Tensor checkpoint(size_t layer, int64_t rows) const;
  void allocate(int64_t rows);
  Rope rope() const { return {cos_.data(false), sin_.data(false), config_.rope_interleaved}; }
  AttentionShape attention_shape() const;

  Input drop(const Buffer& whole, const Buffer& dropped, int64_t rows, int64_t cols, uint32_t site,
             const PassOptions& pass) const;
  Dropout noise(uint32_t site, const PassOptions& pass) const;
  void apply(Tensor y, const AdaptedLinear& linear, const Input& x, bool accumulate,
             const PassOptions& pass) const;
  void input_gradient(Tensor dx, std::span<const Branch> branches, const Input& x, uint32_t site,
                      const PassOptions& pass);
  void weight_gradients(std::span<const Branch> branches, Tensor x);
  void norm_backward(Tensor dx, Tensor dy, Tensor x, const BackboneVector& norm, bool accumulate);
  void turn(Tensor x, Tensor raw, const BackboneVector& norm, const Documents& documents,
            const PassOptions& pass) const;
  void turn_back(Tensor dx, Tensor raw, const BackboneVector& norm, const Documents& documents);

  Input attend(size_t layer, Tensor x, const Documents& documents, const PassOptions& pass);
  Input expand(size_t layer, Tensor x, const PassOptions& pass);
  void backward_mlp(size_t layer, Tensor dx, Tensor x, const Input& inner, const PassOptions& pass);
  void backward_attention(size_t layer, Tensor dx, const Input& attended,
                          const Documents& documents, const PassOptions& pass);

  BackboneTrainBackend& backend_;
  ModelConfig config_;
  DType dtype_;
  int64_t q_cols_, kv_cols_;
  float scale_;  // of adapters: alpha / rank
  int64_t max_rows_;
  bool trains_all_;
  Parameters parameters_;
  LoraWorkspace workspace_;
  Panels inputs_;  // of all weights: a product's input
  BackboneMatrix embedding_;
  AdaptedLinear lm_head_;
  const Parameter *lm_head_a_ = nullptr, *lm_head_b_ = nullptr;
  BackboneVector final_norm_;
  std::vector<Layer> layers_;
  BackboneVector cos_, sin_;  // (positions, head_dim / 2)

  Buffer checkpoints_;                // f32 [layer] (rows, hidden), and the last layer's output
  Buffer x_;                          // f32 (rows, hidden)
  Buffer normed_, attended_, inner_;  // C inputs of products, and of those behind a dropout:
  Buffer dropped_normed_, dropped_attended_, dropped_inner_;
  Buffer q_, k_, v_, raw_q_, raw_k_;       // f32
  Buffer gate_, up_;                       // f32 (rows, intermediate)
  Buffer wide_grad_, dropped_grad_;        // f32 (rows, widest)
  Buffer dq_, dk_, dv_;                    // f32
  Buffer narrow_a_, narrow_b_, narrow_c_;  // C (rows, widest)
};

}  // namespace medusa
