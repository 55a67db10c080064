#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace medusa {

/// Type of weights, of activations that enter a product, and of the key/value cache.
/// float16 is for CUDA alone.
enum class ComputeType : uint8_t { float32, bfloat16, float16 };

/// How weights are kept in memory. as_stored: Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q5_K and Q6_K of
/// ggml in their blocks, where the compute type is bfloat16, and rows that meet them are rounded to
/// 8 bits in groups of 32, and F8_E4M3 as codes and scales, which products widen to bfloat16;
/// widened: all in the compute type.
enum class WeightFormat : uint8_t { as_stored, widened };

/// How keys and values are cached: in the compute type, or as 8-bit codes with one scale for each
/// position and key/value head, at about half of bfloat16's bytes.
enum class KvCacheType : uint8_t { compute, int8 };

enum class RopeScaling : uint8_t { none, linear, llama3 };

/// Shape of a Llama-family backbone. Field names are those of Hugging Face's config.json.
struct ModelConfig {
  std::string architecture = "llama";
  int vocab_size = 0;
  int hidden_size = 0;
  int intermediate_size = 0;
  int num_hidden_layers = 0;
  int num_attention_heads = 0;
  int num_key_value_heads = 0;
  int head_dim = 0;
  int max_position_embeddings = 0;
  float rms_norm_eps = 1e-5f;

  float rope_theta = 10000.0f;
  RopeScaling rope_scaling = RopeScaling::none;
  float rope_factor = 1.0f;
  float rope_low_freq_factor = 1.0f;
  float rope_high_freq_factor = 4.0f;
  int rope_original_max_position_embeddings = 8192;
  std::vector<float> rope_freq_factors;  // (head_dim / 2) divisors of the frequencies, or empty
  bool rope_interleaved = false;         // pairs (2i, 2i+1) as in GGUF "llama"; else (i, i + d/2)

  int sliding_window = 0;  // positions a row can see, itself included; 0: all
  bool tie_word_embeddings = false;
};

/// Where and how a model is loaded.
struct LoadOptions {
  ComputeType compute_type = ComputeType::bfloat16;
  WeightFormat weight_format = WeightFormat::as_stored;
  int num_threads = 0;          // of the CPU; 0: those it may use
  std::string device = "auto";  // "auto", "cpu": the CPU; "cuda"; "cuda:1"
  // A cudaStream_t of the device that outlives the model, not the default one; null: one of its
  // own. Whoever shares it calls from one thread at a time.
  void* stream = nullptr;
};

/// Which drafted tokens a step keeps. exact: those that plain decoding would have produced;
/// typical: those that are likely enough (Medusa, section 2.3.1), which changes the answer.
enum class AcceptanceMethod : uint8_t { exact, typical };

/// Limits of an Engine, how it shares them, and how it accepts. Zero means: choose.
struct EngineOptions {
  int max_num_seqs = 8;
  int max_num_batched_tokens = 0;  // rows of one forward pass
  int max_model_len = 0;           // prompt and answer of one sequence, in tokens
  size_t kv_cache_memory = 0;      // bytes
  KvCacheType kv_cache_dtype = KvCacheType::compute;
  bool enable_prefix_caching = true;  // sequences that begin alike share pages

  /// Choose each sequence's nodes at every step: those that bring most tokens a second by
  /// `step_seconds` and the acceptance seen so far, down to the root alone. Exact answers stay.
  bool adaptive = false;
  std::vector<float> step_seconds = {};      // [rows - 1] of a forward pass, heads not counted
  std::vector<float> path_probability = {};  // [node of the tree] is accepted; root 1; or empty

  /// For benchmarks without trained heads: keep drafted tokens at random, right or wrong, so many a
  /// step on average, the root included. The text means nothing. 0: off.
  float synthetic_acceptance_length = 0;

  AcceptanceMethod acceptance_method = AcceptanceMethod::exact;
  float posterior_threshold = 0.09f;  // typical: of probabilities, between 0 and 1
  float posterior_alpha = 0.3f;       // typical: of exp(-entropy), between 0 and 1
};

}  // namespace medusa
