#pragma once

#include <stdint.h>

// What crosses into ISA files: plain structs and function pointers, no standard library, nothing
// inline, so that code compiled for one instruction set cannot be linked into another's callers.
// Each function is one thread's share; cpu_backend.cc splits the work.
namespace medusa::cpu {

/// Columns of one packed block of weights.
inline constexpr int kBlock = 16;
/// Blocks of one panel: their lines alternate in memory, so that a product reads one stream.
inline constexpr int kPanelBlocks = 2;
inline constexpr int kPanel = kPanelBlocks * kBlock;
/// Positions of one key or value tile (kPageSize).
inline constexpr int kTile = 64;

/// Index of per-type functions: types of rows, then of weights alone (block_layout.h).
enum ElementType : int {
  kF32,
  kBf16,
  kQ8_0,
  kQ4_0,
  kQ4_1,
  kQ5_0,
  kQ5_1,
  kQ4_K,
  kQ5_K,
  kQ6_K,
  kF8_E4M3
};
inline constexpr int kRowTypes = 2, kWeightTypes = 11;
/// Types of the key/value cache: those of rows, then 8-bit codes beside bf16 rows.
inline constexpr int kI8Cache = kRowTypes, kCacheTypes = kRowTypes + 1;

/// 32 elements of a row, rounded to 8 bits: scale · codes[i].
struct QuantizedGroup {
  int8_t codes[32];
  float scale;
  float scaled_sum;  // scale · (sums[0] + sums[1])
  int32_t sums[2];   // of the codes of either half
};

/// Epilogue, value for value; then `rank`, which keeps the best columns alone.
enum class Finish : uint8_t { store, add, silu_mul, residual_silu, rank };

/// Of each row the best columns so far, best first; ties: lowest column first. Places that no
/// column has taken hold -infinity. Columns come in rising order.
struct Ranking {
  float* values;  // (rows, k)
  int32_t* ids;   // (rows, k)
  int64_t k;
};

struct LinearArgs {
  const void* x;     // (rows, k): the compute type, or f32 where the table widens activations
  const void* tail;  // the last rows % row_padding rows again, padded with zero rows; or null
  const QuantizedGroup* groups;  // (rows, k / 32): the rows for weights in blocks
  int64_t x_stride;
  int64_t rows;
  int64_t k;           // a multiple of 32
  const void* weight;  // bf16 [n/32][k/2][32][2], f32 [n/32][k][32] or quantised, n padded to 32
  const float* bias;   // (n) or null
  int64_t n;           // columns, padding left out
  Finish finish;
  const void* residual;  // residual_silu: (rows, >= n) in the compute type
  int64_t residual_stride;
  void* out;
  int64_t out_stride;  // elements, as all strides
  Ranking ranking;     // rank: of all rows
};

struct RmsNormArgs {
  const float* x;
  const float* weight;
  void* out;
  int64_t cols;  // a multiple of 16; also the stride
  float eps;
};

struct RopeArgs {
  const float* qkv;  // (rows, (heads + 2 kv heads) · head_dim)
  float* q;
  void* keys;
  void* values;
  const float* q_norm;
  const float* k_norm;
  float norm_eps;
  const float* cos;  // (positions, head_dim / 2)
  const float* sin;
  const int32_t* positions;
  int64_t num_heads, num_kv_heads, head_dim;
  bool interleaved;
};

/// Keys of cached positions first .. end - 1, of one sequence and key/value head; `first` begins a
/// tile.
struct CachedKeys {
  const int32_t* pages;
  const void* tiles;  // of page 0
  int64_t first, end;
};

/// Queries first_query .. last_query - 1 of one sequence and one key/value head. Query i is row
/// i / group of the sequence, head i % group of the group.
struct AttentionArgs {
  const float* q;  // the sequence's first row, the group's first head
  int64_t q_stride;
  const void* fresh_keys;  // likewise
  const void* fresh_values;
  int64_t fresh_stride;
  const void* key_tiles;  // of page 0; page p is page_stride elements further
  const void* value_tiles;
  int64_t page_stride;
  const int32_t* pages;
  const int32_t* positions;  // of the sequence's rows
  const int32_t* parents;    // likewise; values count from the batch's first row
  int64_t first_row;
  int64_t committed;
  bool chain;
  int64_t group, head_dim, window;
  float scale;
  int64_t first_query, last_query;
  CachedKeys next;  // what the thread reads after this call, or none
  void* out;        // as q, in the compute type
  int64_t out_stride;

  int64_t queries_per_block;
  int64_t score_stride;  // a multiple of 16
  float* scores;         // (queries_per_block, score_stride)
  float* scaled;         // (queries_per_block, head_dim)
  float* sums;           // (queries_per_block, head_dim)
  float* score_scales;   // (queries_per_block)
  float* value_scales;   // (score_stride) of 8-bit values, by position
  void* fresh_tiles;     // ceil(rows / 64) key tiles
  float* fresh_scores;   // (kMaxQueryBlock, ceil(rows / 64) · 64)
  int32_t* path;         // (rows)
};

/// Most queries that share one register block, on any ISA.
inline constexpr int kMaxQueryBlock = 6;

struct CommitArgs {
  const void* keys;  // of the row, all kv heads
  const void* values;
  void* key_tiles;  // of the page, the first kv head
  void* value_tiles;
  int64_t slot, num_kv_heads, head_dim;
};

/// Noise of one drawn token: Philox words of (seed; token id, position).
struct NoiseKey {
  uint64_t seed;
  int64_t position;
};

/// Sums over a row of e^z, z = (logit - top) / temperature, and of z · e^z.
struct SoftmaxSums {
  float weights;
  float exponents;
};

struct KernelTable {
  const char* name;
  bool widens_activations;  // bf16 products take x widened to f32
  int row_padding;          // products read rows of LinearArgs::tail, or groups, up to this
  void (*widen)(float* out, const uint16_t* x, int64_t n);
  void (*linear[kWeightTypes])(const LinearArgs& args, int64_t first_panel, int64_t last_panel);
  // groups first .. last - 1 of bf16 rows that lie one after another
  void (*quantize)(QuantizedGroup* out, const void* x, int64_t first, int64_t last);
  void (*rms_norm[kRowTypes])(const RmsNormArgs& args, int64_t first_row, int64_t last_row);
  void (*rope[kCacheTypes])(const RopeArgs& args, int64_t first_row, int64_t last_row);
  void (*attention[kCacheTypes])(const AttentionArgs& args);
  void (*commit[kCacheTypes])(const CommitArgs& args);
  void (*top_k)(float* values, int32_t* ids, int64_t k, const float* logits, int64_t n);
  int32_t (*argmax)(const float* logits, int64_t n);
  // argmax of logits · inverse_temperature + noise
  int32_t (*draw)(const float* logits, int64_t n, float inverse_temperature, const NoiseKey& key);
  // noise of any ids
  void (*noise)(float* out, const int32_t* ids, int64_t n, const NoiseKey& key);
  // out = exp((logits - top) · inverse_temperature); returns the sum
  float (*weigh)(float* out, const float* logits, int64_t n, float inverse_temperature, float top);
  SoftmaxSums (*softmax_sums)(const float* logits, int64_t n, float inverse_temperature, float top);
};

const KernelTable& generic_kernels();
const KernelTable& avx2_kernels();
const KernelTable& avx512_kernels();
const KernelTable& avx512_bf16_kernels();
const KernelTable& amx_kernels();

}  // namespace medusa::cpu
