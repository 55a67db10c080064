#include "decode/limits.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"
#include "decode/synthetic_accept.h"
#include "model/kv_cache.h"

namespace medusa {
namespace {

constexpr int kPrefillRows = 256;

void check_asked(const EngineOptions& asked, const ModelConfig& config) {
  check(asked.max_num_seqs >= 1 && asked.max_num_seqs <= 4096,
        "max_num_seqs: expected 1 to 4096, found ", asked.max_num_seqs);
  check(asked.max_num_batched_tokens >= 0 && asked.max_num_batched_tokens <= 1 << 20,
        "max_num_batched_tokens: expected 0 (choose) to ", 1 << 20, ", found ",
        asked.max_num_batched_tokens);
  check(asked.max_model_len >= 0 && asked.max_model_len <= config.max_position_embeddings,
        "max_model_len: expected 0 (choose) to the model's ", config.max_position_embeddings,
        ", found ", asked.max_model_len);
}

int resolve_rows(const EngineOptions& asked, const Tree& tree) {
  const int decode_rows = asked.max_num_seqs * tree.size();
  if (asked.max_num_batched_tokens == 0) return std::max(kPrefillRows, decode_rows);
  if (asked.adaptive) {  // its trees fit what there is
    check(asked.max_num_batched_tokens >= asked.max_num_seqs,
          "max_num_batched_tokens: expected at least max_num_seqs = ", asked.max_num_seqs,
          ", found ", asked.max_num_batched_tokens);
    return asked.max_num_batched_tokens;
  }
  check(asked.max_num_batched_tokens >= decode_rows,
        "max_num_batched_tokens: expected at least max_num_seqs · tree nodes = ", decode_rows,
        ", found ", asked.max_num_batched_tokens);
  return asked.max_num_batched_tokens;
}

void check_tuning(const EngineOptions& asked, const Tree& tree) {
  for (const float seconds : asked.step_seconds) {
    check(std::isfinite(seconds) && seconds > 0, "step_seconds: expected above 0, found ", seconds);
  }
  check(!asked.adaptive || !asked.step_seconds.empty(),
        "adaptive: expected step_seconds, which it chooses by, found none");
  const auto& probability = asked.path_probability;
  if (probability.empty()) return;
  check(static_cast<int>(probability.size()) == tree.size(), "path_probability: expected ",
        tree.size(), " values, one per node of the tree, found ", probability.size());
  check(probability[0] == 1, "path_probability: expected 1 for the root, found ", probability[0]);
  for (const float value : probability) {
    check(value >= 0 && value <= 1, "path_probability: expected 0 to 1, found ", value);
  }
}

}  // namespace

EngineOptions resolve_limits(const EngineOptions& asked, const Backend& backend,
                             const ModelConfig& config, const Tree& tree) {
  check_asked(asked, config);
  check_tuning(asked, tree);
  check_synthetic(asked, tree);
  EngineOptions options = asked;
  options.max_num_batched_tokens = resolve_rows(asked, tree);
  const size_t page = KvCache::page_bytes(config, KvCache::dtype_of(backend, asked.kv_cache_dtype));
  const size_t budget =
      asked.kv_cache_memory != 0 ? asked.kv_cache_memory : backend.default_cache_bytes();
  const auto pages = static_cast<int64_t>(std::min<size_t>(budget / page, 1 << 24));
  if (asked.max_model_len == 0) {
    options.max_model_len = static_cast<int>(
        std::min<int64_t>(config.max_position_embeddings, std::max<int64_t>(pages, 1) * kPageSize));
  }
  const int64_t per_sequence = KvCache::pages_for(options.max_model_len);
  check<OutOfMemory>(pages >= per_sequence, "kv_cache_memory: expected at least ",
                     per_sequence * page,
                     " bytes for one sequence of max_model_len = ", options.max_model_len,
                     " tokens, found ", budget);
  const int64_t useful = std::min(pages, per_sequence * options.max_num_seqs);
  options.kv_cache_memory = static_cast<size_t>(useful) * page;
  return options;
}

}  // namespace medusa
