#include "gpu/bench.h"

namespace medusa::benchmark {
namespace {

ModelConfig llama(int vocab, int hidden, int inner, int layers, int heads, int kv_heads,
                  int head_dim, bool tied) {
  ModelConfig config;
  config.vocab_size = vocab;
  config.hidden_size = hidden;
  config.intermediate_size = inner;
  config.num_hidden_layers = layers;
  config.num_attention_heads = heads;
  config.num_key_value_heads = kv_heads;
  config.head_dim = head_dim;
  config.max_position_embeddings = 4096;
  config.tie_word_embeddings = tied;
  return config;
}

}  // namespace

Plan full_plan() {
  Plan plan;
  plan.models = {{"Llama-3.2-1B", llama(128256, 2048, 8192, 16, 32, 8, 64, true)},
                 {"Llama-3.1-8B", llama(128256, 4096, 14336, 32, 32, 8, 128, false)},
                 {"Vicuna-7B", llama(32000, 4096, 11008, 32, 32, 32, 128, false)}};
  return plan;
}

Plan tiny_plan() {
  Plan plan;
  plan.models = {{"tiny", llama(96, 64, 96, 2, 4, 2, 16, true)}};
  plan.rows = {1, 3};
  plan.contexts = {5};
  plan.read_bytes = size_t{1} << 16;
  plan.working_set = 0;
  plan.calls = 1;
  plan.repeats = 1;
  plan.answer = 4;
  plan.draft_vocab = 64;
  return plan;
}

}  // namespace medusa::benchmark
