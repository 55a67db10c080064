#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "medusa/config.h"
#include "medusa/dtype.h"

namespace medusa {

/// Scales of a matrix of F8_E4M3 codes, f32: one for each block of `rows` by `columns` of it,
/// (ceil(out_features / rows), ceil(in_features / columns)), positive and finite.
struct BlockScales {
  const float* values = nullptr;
  int64_t rows = 1;
  int64_t columns = 1;  // a multiple of 128, or at least in_features
};

/// A tensor in host memory that somebody else owns, often a mapped file.
struct HostTensor {
  const void* data = nullptr;
  size_t bytes = 0;
  DType dtype = DType::f32;
  std::vector<int64_t> shape;  // row-major, (out_features, in_features) for weights
  BlockScales scales = {};     // of F8_E4M3: an element is its code times its block's scale
};

/// Canonical (Hugging Face) tensor name to tensor.
using TensorMap = std::map<std::string, HostTensor>;

/// A backbone with packed weights on one device. Immutable after loading; cheap to copy (shared).
class Model {
 public:
  /// Packs `tensors`, which may be unmapped afterwards. Throws ModelFormatError naming the tensor,
  /// what was expected and what was found.
  static Model load(const ModelConfig& config, const TensorMap& tensors,
                    const LoadOptions& options);

  const ModelConfig& config() const;
  ComputeType compute_type() const;
  /// Types that matrices are kept in, by name, and how many weights of each.
  std::map<std::string, int64_t> weight_formats() const;
  int num_threads() const;
  std::string device_name() const;  // "cpu (avx512_bf16, 2 threads)"
  size_t weight_bytes() const;      // packed weights held in memory
  size_t step_bytes() const;        // weight bytes one forward pass reads

  /// Logits (tokens.size(), vocab_size) of a sequence, run in chunks of the given sizes (their sum
  /// is tokens.size(); empty: one chunk). Every chunk sees the cache of the earlier ones.
  std::vector<float> logits(std::span<const int32_t> tokens,
                            std::span<const int> chunks = {}) const;

  /// `hidden`: (count, hidden_size) of the compute type, states after the final norm of tokens
  /// first_token .. first_token + count - 1 of one sequence; valid during the call.
  using HiddenCallback =
      std::function<void(int sequence, int first_token, int count, const void* hidden)>;
  /// Runs whole sequences, several short ones at a time, in order.
  void hidden_states(std::span<const std::vector<int32_t>> sequences,
                     const HiddenCallback& on_hidden) const;

  struct Impl;
  const std::shared_ptr<Impl>& impl() const { return impl_; }

 private:
  explicit Model(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}
  std::shared_ptr<Impl> impl_;
};

/// Medusa heads on a Model. V1: a projection per head; V2: the backbone's lm_head. Grounded heads
/// look at the root token's embedding beside the state.
class Heads {
 public:
  struct Layer {
    HostTensor weight;               // (hidden, hidden); layer 0, grounded: (hidden, 2 · hidden)
    std::optional<HostTensor> bias;  // (hidden)
  };
  struct Source {
    std::vector<std::vector<Layer>> residual;  // [head][layer]
    std::vector<HostTensor> projection;        // V1: per head (draft_vocab, hidden); V2: empty
    std::vector<int32_t> token_map;            // draft id to token id; empty: identity
    bool grounded = false;
  };
  static Heads load(const Model& model, const Source& source);

  int num_heads() const;
  int num_layers() const;
  int version() const;  // 1 or 2
  bool grounded() const;
  int draft_vocab_size() const;
  size_t weight_bytes() const;

  /// What every head guesses after each row of `hidden`, (rows, hidden_size) of the compute type as
  /// Model::hidden_states gives it: ids (rows, heads, top_k), best first, the very ones that drafts
  /// are made of. `roots` (rows): the token that follows each row.
  std::vector<int32_t> guesses(const HostTensor& hidden, std::span<const int32_t> roots,
                               int top_k) const;

  struct Impl;
  const std::shared_ptr<Impl>& impl() const { return impl_; }

 private:
  explicit Heads(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}
  std::shared_ptr<Impl> impl_;
};

}  // namespace medusa
