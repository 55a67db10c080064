#include <algorithm>

#include "backend/ops.h"
#include "base/check.h"
#include "model/load.h"
#include "model/model_impl.h"
#include "model/sequence_runner.h"
#include "model/tensor_store.h"

namespace medusa {
namespace {

constexpr int64_t kBlockRows = 32;  // heads' logits exist for so many rows at a time

}  // namespace

std::vector<int32_t> Heads::guesses(const HostTensor& hidden, std::span<const int32_t> roots,
                                    int top_k) const {
  Backend& backend = *impl_->model.impl()->backend;
  const MedusaHeads& heads = impl_->heads;
  const ModelConfig& config = impl_->model.config();
  const auto rows = static_cast<int64_t>(roots.size());
  check_shape(hidden, {rows, config.hidden_size}, "hidden");
  check(hidden.dtype == backend.compute_dtype(), "hidden: expected ", name(backend.compute_dtype()),
        ", found ", name(hidden.dtype));
  check_tokens(roots, config.vocab_size);
  check(top_k >= 1 && top_k <= kMaxTopK && top_k <= heads.draft_vocab(), "top_k: expected 1 to ",
        std::min<int64_t>(kMaxTopK, heads.draft_vocab()), ", found ", top_k);

  const std::lock_guard lock(impl_->model.impl()->mutex);
  HeadsWorkspace workspace(backend, heads, kBlockRows, num_heads(), top_k);
  TensorStore store(backend);
  const Tensor block = store.add(hidden.dtype, kBlockRows, config.hidden_size);
  const auto* source = static_cast<const char*>(hidden.data);
  std::vector<int32_t> out(rows * num_heads() * top_k);
  for (int64_t first = 0; first < rows; first += kBlockRows) {
    const Tensor states = block.slice(0, std::min(kBlockRows, rows - first));
    backend.upload(states, source + first * states.row_bytes());
    const auto ids =
        heads.guess(backend, states, roots.subspan(first, states.rows), num_heads(), workspace);
    for (int64_t i = 0; i < num_heads() * states.rows; ++i) {  // (heads, rows) to (rows, heads)
      const int64_t row = first + i % states.rows, head = i / states.rows;
      std::copy_n(ids.begin() + i * top_k, top_k, out.begin() + (row * num_heads() + head) * top_k);
    }
  }
  return out;
}

}  // namespace medusa
