#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "model/kv_cache.h"
#include "model/llama.h"
#include "model/rope_table.h"
#include "model/workspace.h"

namespace medusa {

/// Runs whole sequences through the backbone, for evaluation and training: chains from position 0,
/// several short ones in one forward pass, a long one in chunks.
class SequenceRunner {
 public:
  /// Called with the hidden states C (rows, hidden) of `count` consecutive tokens of a sequence.
  using OnHidden = std::function<void(int sequence, int first_token, Tensor hidden)>;

  SequenceRunner(Backend& backend, const Llama& llama, int max_rows, int max_positions,
                 int max_logits_rows);

  void hidden_states(std::span<const std::vector<int32_t>> sequences, const OnHidden& on_hidden);
  /// One sequence in the given chunks; fills `out` (tokens, vocab).
  void logits(std::span<const int32_t> tokens, std::span<const int> chunks, float* out);

 private:
  void clear_batch();
  void add_chain(int sequence, std::span<const int32_t> tokens, int committed);
  void forward();
  void run_long(int sequence, std::span<const int32_t> tokens, const OnHidden& on_hidden);
  void flush(const OnHidden& on_hidden);
  void commit_chain();

  Backend& backend_;
  const Llama& llama_;
  RopeTable rope_;
  Workspace workspace_;
  KvCache cache_;
  RowBatch batch_;
  std::vector<int> batch_sequences_;  // index of each chain of the batch
};

/// Throws InvalidArgument unless all ids are in [0, vocab_size).
void check_tokens(std::span<const int32_t> tokens, int vocab_size);

}  // namespace medusa
