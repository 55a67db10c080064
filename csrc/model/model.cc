#include "medusa/model.h"

#include <algorithm>
#include <numeric>

#include "base/check.h"
#include "model/load.h"
#include "model/model_impl.h"
#include "model/sequence_runner.h"

namespace medusa {
namespace {

constexpr int kRunnerRows = 512;

std::vector<int> even_chunks(int total) {
  std::vector<int> chunks(total / kRunnerRows, kRunnerRows);
  if (total % kRunnerRows != 0) chunks.push_back(total % kRunnerRows);
  return chunks;
}

int longest(std::span<const std::vector<int32_t>> sequences) {
  size_t most = 1;
  for (const auto& sequence : sequences) most = std::max(most, sequence.size());
  return static_cast<int>(most);
}

}  // namespace

Model Model::load(const ModelConfig& config, const TensorMap& tensors, const LoadOptions& options) {
  check_config(config);
  auto backend = make_backend(options);
  return Model(std::make_shared<Impl>(std::move(backend), config, tensors));
}

const ModelConfig& Model::config() const { return impl_->llama.config(); }
ComputeType Model::compute_type() const {
  const DType dtype = impl_->backend->compute_dtype();
  return dtype == DType::f32   ? ComputeType::float32
         : dtype == DType::f16 ? ComputeType::float16
                               : ComputeType::bfloat16;
}
std::map<std::string, int64_t> Model::weight_formats() const {
  return impl_->llama.weight_formats();
}
int Model::num_threads() const { return impl_->backend->num_threads(); }
std::string Model::device_name() const { return impl_->backend->name(); }
size_t Model::weight_bytes() const { return impl_->llama.weight_bytes(); }
size_t Model::step_bytes() const { return impl_->llama.step_bytes(); }

std::vector<float> Model::logits(std::span<const int32_t> tokens,
                                 std::span<const int> chunks) const {
  const auto total = static_cast<int>(tokens.size());
  check(total > 0, "tokens: expected at least one, found none");
  check(total <= config().max_position_embeddings, "tokens: expected at most ",
        config().max_position_embeddings, ", found ", total);
  check_tokens(tokens, config().vocab_size);
  const std::vector<int> whole = even_chunks(total);
  const std::span<const int> plan = chunks.empty() ? std::span<const int>(whole) : chunks;
  const bool positive = std::all_of(plan.begin(), plan.end(), [](int n) { return n > 0; });
  check(positive && std::accumulate(plan.begin(), plan.end(), int64_t{0}) == total,
        "chunks: expected positive sizes that sum to ", total);

  const std::lock_guard lock(impl_->mutex);
  const int most = *std::max_element(plan.begin(), plan.end());
  SequenceRunner runner(*impl_->backend, impl_->llama, most, total, std::min(most, 64));
  std::vector<float> out(static_cast<size_t>(total) * config().vocab_size);
  runner.logits(tokens, plan, out.data());
  return out;
}

void Model::hidden_states(std::span<const std::vector<int32_t>> sequences,
                          const HiddenCallback& on_hidden) const {
  const int most = longest(sequences);
  check(most <= config().max_position_embeddings, "sequence: expected at most ",
        config().max_position_embeddings, " tokens, found ", most);
  const std::lock_guard lock(impl_->mutex);
  SequenceRunner runner(*impl_->backend, impl_->llama, kRunnerRows, most, 1);
  runner.hidden_states(sequences, [&](int sequence, int first_token, Tensor hidden) {
    on_hidden(sequence, first_token, static_cast<int>(hidden.rows),
              impl_->backend->download(hidden));
  });
}

Heads Heads::load(const Model& model, const Source& source) {
  const std::lock_guard lock(model.impl()->mutex);
  return Heads(std::make_shared<Impl>(
      model, MedusaHeads(*model.impl()->backend, model.impl()->llama, source)));
}

int Heads::num_heads() const { return impl_->heads.num_heads(); }
int Heads::num_layers() const { return impl_->heads.num_layers(); }
int Heads::version() const { return impl_->heads.version(); }
bool Heads::grounded() const { return impl_->heads.grounded(); }
int Heads::draft_vocab_size() const { return static_cast<int>(impl_->heads.draft_vocab()); }
size_t Heads::weight_bytes() const { return impl_->heads.weight_bytes(); }

}  // namespace medusa
