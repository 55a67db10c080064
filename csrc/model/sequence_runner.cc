#include "model/sequence_runner.h"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "base/check.h"

namespace medusa {

void check_tokens(std::span<const int32_t> tokens, int vocab_size) {
  for (const int32_t token : tokens) {
    check(token >= 0 && token < vocab_size, "token ids: expected 0 to ", vocab_size - 1, ", found ",
          token);
  }
}

SequenceRunner::SequenceRunner(Backend& backend, const Llama& llama, int max_rows,
                               int max_positions, int max_logits_rows)
    : backend_(backend),
      llama_(llama),
      rope_(backend, llama.config(), max_positions),
      workspace_(backend, llama.config(), backend.compute_dtype(), max_rows, max_logits_rows),
      cache_(backend, llama.config(), backend.compute_dtype(), 1, KvCache::pages_for(max_positions),
             max_positions) {}

void SequenceRunner::clear_batch() {
  batch_.clear();
  batch_sequences_.clear();
}

void SequenceRunner::add_chain(int sequence, std::span<const int32_t> tokens, int committed) {
  const auto first = static_cast<int>(batch_.num_rows());
  const auto count = static_cast<int>(tokens.size());
  batch_.sequences.push_back({first, count, committed, cache_.pages(0), true});
  batch_sequences_.push_back(sequence);
  batch_.add_chain(tokens, committed);
}

void SequenceRunner::forward() {
  llama_.forward(backend_, batch_, cache_.layout(), rope_.view(), workspace_);
}

void SequenceRunner::commit_chain() {
  const auto rows = static_cast<int>(batch_.num_rows());
  for (int row = 0; row < rows; ++row) cache_.offer(0, row, batch_.positions[row]);
  cache_.commit(backend_, workspace_);
  cache_.advance(0, rows);
}

void SequenceRunner::flush(const OnHidden& on_hidden) {
  if (batch_.num_rows() == 0) return;
  forward();
  const Tensor hidden = workspace_.hidden(batch_.num_rows());
  for (size_t i = 0; i < batch_.sequences.size(); ++i) {
    const SequenceRows& rows = batch_.sequences[i];
    on_hidden(batch_sequences_[i], rows.committed, hidden.slice(rows.first_row, rows.num_rows));
  }
}

void SequenceRunner::run_long(int sequence, std::span<const int32_t> tokens,
                              const OnHidden& on_hidden) {
  const auto total = static_cast<int>(tokens.size());
  cache_.release(0);
  cache_.reserve(0, total);
  for (int done = 0; done < total; done += workspace_.max_rows()) {
    const int count = std::min(workspace_.max_rows(), total - done);
    clear_batch();
    add_chain(sequence, tokens.subspan(done, count), done);
    flush(on_hidden);
    commit_chain();
  }
}

void SequenceRunner::hidden_states(std::span<const std::vector<int32_t>> sequences,
                                   const OnHidden& on_hidden) {
  clear_batch();
  for (size_t i = 0; i < sequences.size(); ++i) {
    check_tokens(sequences[i], llama_.config().vocab_size);
    const auto length = static_cast<int64_t>(sequences[i].size());
    if (batch_.num_rows() + length > workspace_.max_rows()) {
      flush(on_hidden);
      clear_batch();
    }
    if (length > workspace_.max_rows()) {
      run_long(static_cast<int>(i), sequences[i], on_hidden);
      clear_batch();
    } else if (length > 0) {
      add_chain(static_cast<int>(i), sequences[i], 0);
    }
  }
  flush(on_hidden);
}

void SequenceRunner::logits(std::span<const int32_t> tokens, std::span<const int> chunks,
                            float* out) {
  const int64_t vocab = llama_.config().vocab_size;
  cache_.release(0);
  cache_.reserve(0, static_cast<int>(tokens.size()));
  int done = 0;
  for (const int count : chunks) {
    clear_batch();
    add_chain(0, tokens.subspan(done, count), done);
    forward();
    for (int row = 0; row < count; row += workspace_.max_logits_rows()) {
      std::vector<int32_t> rows(std::min(workspace_.max_logits_rows(), count - row));
      std::iota(rows.begin(), rows.end(), row);
      llama_.logits(backend_, rows, count, workspace_);
      const Tensor part = workspace_.logits(static_cast<int64_t>(rows.size()));
      std::memcpy(out + (done + row) * vocab, backend_.download(part), part.bytes());
    }
    commit_chain();
    done += count;
  }
}

}  // namespace medusa
