#pragma once

#include <cstddef>
#include <cstdint>

#include "backend/cuda/runtime.h"

// The launchers: each queues one verb's kernel. All pointers are to device memory; C is the compute
// type, `element`. Arguments are compared where a step is replayed as a graph.
namespace medusa::cuda {

enum class Element : uint8_t { f32, bf16, f16 };

/// How a weight is packed (packing.h). GGUF's blocks of 32 and 8-bit floats go with bf16 alone.
enum class Format : uint8_t { f32, bf16, f16, q8_0, q4_0, q4_1, f8_e4m3 };

/// A packed weight: elements or codes, and of blocks f16 factors, of 8-bit floats f32 scales.
struct PackedWeight {
  const void* codes;
  const void* scales;
  const void* minimums;
  bool operator==(const PackedWeight&) const = default;
};

struct EmbedArgs {
  PackedWeight table;  // (vocab, width)
  const int32_t* ids;
  int rows, width;
  bool operator==(const EmbedArgs&) const = default;
};
/// out f32 (rows, width).
void embed(const Stream& stream, Format format, const EmbedArgs& args, float* out);
/// out C (rows, x_width + width): x's row, then the embedding of its id.
void append_embedding(const Stream& stream, Format format, const EmbedArgs& args, const void* x,
                      int x_width, void* out);

struct RmsNormArgs {
  const float* x;       // (rows, cols)
  const float* weight;  // (cols)
  void* out;            // (rows, cols) of `element`
  int rows, cols;
  float eps;
  bool operator==(const RmsNormArgs&) const = default;
};
void rms_norm(const Stream& stream, Element element, const RmsNormArgs& args);

/// As Epilogue in backend/backend.h; and `reduce`, for outputs that are logits.
enum class Finish : uint8_t { store, add, silu_mul, residual_silu, reduce };

/// What one row of logits is asked for: a token drawn as by SampleRow, and, where there are tokens,
/// what PosteriorRow asks.
struct LogitsRow {
  uint64_t seed = 0;
  int64_t position = 0;
  float temperature = 0;
  float judged_temperature = 0;
  int32_t first_token = 0, num_tokens = 0, entropy = 0;  // as JudgeRow
};
inline constexpr int kLogitsTile = 128;  // columns: ids of one record
constexpr int logits_tiles(int64_t vocab) {
  return static_cast<int>((vocab + kLogitsTile - 1) / kLogitsTile);
}
/// What Finish::reduce leaves of each row and tile of columns. Either keys, ranked, of the
/// likeliest and the drawn id, or (k > 0) of the k likeliest, best first.
struct LogitsRecords {
  const LogitsRow* rows;  // where k == 0
  const int32_t* tokens;
  uint64_t* keys;  // [row][tile][2] or [row][tile][k]
  float* sums;     // [row][tile][2] of judged rows: e^z and z · e^z, z from the tile's top down
  float* token_logits;  // as tokens
  int k;
  bool operator==(const LogitsRecords&) const = default;
};

/// Which kernels multiply: chosen once for a back end, by its device (kernel_set.h).
enum class KernelSet : uint8_t { portable, sm90 };

struct LinearArgs {
  const void* x;  // C (rows, k)
  PackedWeight weight;
  const float* bias;  // (n) or null
  void* out;          // of Finish::reduce logits f32 (rows, n), or null
  int rows, k, n;
  Finish finish;
  KernelSet kernels;      // f32 and f8_e4m3 weights have portable ones alone
  int splits;             // of k: linear_splits()
  int sharers;            // of x: linear_sharers()
  float* partials;        // linear_partials() floats
  int* tickets;           // linear_tiles() zeros, and zeros again afterwards
  LogitsRecords records;  // of Finish::reduce
  bool operator==(const LinearArgs&) const = default;
};
inline constexpr int kClusterBlocks = 8;  // blocks of a cluster
/// Into how many parts a product's sum is split: a function of the weight's shape.
int linear_splits(KernelSet kernels, int64_t k, int64_t n);
/// How many neighbouring tiles of 128 weight rows fetch x together where there is much of it.
int linear_sharers(KernelSet kernels, int64_t k, int64_t n);
/// Whether splits are joined through `partials`, by the block that has the last ticket.
bool linear_joins_in_memory(KernelSet kernels, Format format, int splits);
int64_t linear_tiles(Format format, int64_t rows, int64_t n);
int64_t linear_partials(Format format, int64_t rows, int64_t n, int splits);
void linear(const Stream& stream, Format format, const LinearArgs& args);

struct RopeArgs {
  const float* qkv;  // (rows, (heads + 2 · kv heads) · head_dim)
  float* q;
  void* keys;  // C
  void* values;
  const float* q_norm;  // (head_dim) or null
  const float* k_norm;
  float norm_eps;
  const float* cos;  // (positions, head_dim / 2)
  const float* sin;
  const int32_t* positions;
  int rows, num_heads, num_kv_heads, head_dim;
  bool interleaved;
  bool operator==(const RopeArgs&) const = default;
};
void rope(const Stream& stream, Element element, const RopeArgs& args);

/// Rows of one sequence, as SequenceRows.
struct AttentionSequence {
  int32_t first_row;
  int32_t committed;
  int32_t first_page;  // in AttentionArgs::pages
  int32_t chain;
};
/// Consecutive rows of one sequence that one block takes, for one key/value head.
struct AttentionTile {
  int32_t sequence;
  int32_t first_row;  // of the batch
  int32_t rows;
  int32_t first_chunk, last_chunk;  // of kAttentionChunk positions, that some row sees
  int32_t last_position;            // that some row sees
};
inline constexpr int kAttentionChunk = 64;
inline constexpr int kSplitChunks = 8;   // that one block walks: fixed, so that results are
inline constexpr int kTileQueries = 64;  // rows · heads that share a key/value head

constexpr int attention_splits(const AttentionTile& tile) {
  return tile.last_chunk / kSplitChunks - tile.first_chunk / kSplitChunks + 1;
}

struct AttentionArgs {
  const float* q;    // (rows, heads · head_dim)
  const void* keys;  // C (rows, kv heads · head_dim), fresh
  const void* values;
  const void* key_pages;  // C [page][kv head][64][head_dim] of the layer
  const void* value_pages;
  void* out;  // C, as q
  const AttentionSequence* sequences;
  const AttentionTile* tiles;
  const int32_t* positions;  // (rows)
  const int32_t* paths;      // (rows, path_stride) of trees: ancestor at committed + column
  const int32_t* pages;
  int num_tiles, num_splits;  // most that a tile has
  int path_stride;
  int num_heads, num_kv_heads, head_dim, window;
  float scale;
  int sharers;      // of x: linear_sharers()
  float* partials;  // attention_partials() floats, where num_splits > 1
  int* tickets;     // attention_tickets() zeros, and zeros again afterwards
  bool operator==(const AttentionArgs&) const = default;
};
int64_t attention_partials(const AttentionArgs& args);
int64_t attention_tickets(const AttentionArgs& args);
void tree_attention(const Stream& stream, Element element, const AttentionArgs& args);

void gather_rows(const Stream& stream, void* out, const void* x, const int32_t* rows, int count,
                 size_t row_bytes);

/// As SampleRow, without filters and rules.
struct DrawRow {
  int64_t row;
  uint64_t seed;
  int64_t position;
  float temperature;
};
struct SampleArgs {
  const float* logits;  // (…, vocab)
  const DrawRow* rows;
  int32_t* ids;    // (rows)
  uint64_t* best;  // sample_bests()
  int* tickets;    // (rows) zeros, and zeros again afterwards
  int num_rows, vocab;
  bool operator==(const SampleArgs&) const = default;
};
int64_t sample_bests(int64_t rows, int64_t vocab);
void sample(const Stream& stream, const SampleArgs& args);

/// As PosteriorRow: the tokens from `first_token` on, and where its entropy goes.
struct JudgeRow {
  DrawRow draw;
  int32_t first_token, num_tokens, entropy;
};
struct PosteriorArgs {
  const float* logits;  // (…, vocab)
  const JudgeRow* rows;
  const int32_t* tokens;
  float* log_probs;  // as tokens
  float* entropies;
  int num_rows, vocab;
  bool operator==(const PosteriorArgs&) const = default;
};
void posterior(const Stream& stream, const PosteriorArgs& args);

/// From the records of whole rows, what was asked for.
struct ChooseArgs {
  LogitsRecords records;
  int32_t* ids;      // (rows) drawn
  float* log_probs;  // as tokens
  float* entropies;
  int num_rows, vocab;
  bool operator==(const ChooseArgs&) const = default;
};
void choose(const Stream& stream, const ChooseArgs& args);
struct MergeTopKArgs {
  const uint64_t* keys;  // [row][tile][k]
  float* values;         // (rows, k)
  int32_t* ids;
  int rows, vocab, k;
  bool operator==(const MergeTopKArgs&) const = default;
};
void merge_top_k(const Stream& stream, const MergeTopKArgs& args);

/// How a sequence's rows are decided about: all kept, or a path of a tree.
enum class AcceptKind : int32_t { chain, exact, typical };
/// As AcceptSequence. `drawn` are of its last rows.
struct AcceptRange {
  int32_t first_row, num_rows, first_drawn, num_drawn;
  AcceptKind kind;
};
struct AcceptArgs {
  const AcceptRange* sequences;
  const int32_t* tokens;   // (rows) of the batch
  const int32_t* parents;  // (rows) counted from the sequence's first row, -1: none
  const int32_t* depths;   // (rows)
  const int32_t* drawn;
  const float* log_probs;  // (rows) of typical trees, as in JudgedTree
  const float* entropies;  // (rows)
  float* scores;           // (rows)
  float log_threshold, log_alpha;
  int32_t* kept;  // (rows)
  int32_t* last;  // (sequences)
  int32_t* roots;
  int count;  // sequences
  bool operator==(const AcceptArgs&) const = default;
};
void accept(const Stream& stream, const AcceptArgs& args);

/// The device's clock in nanoseconds.
void stamp(const Stream& stream, int64_t* out);

struct CommitTarget {
  int32_t row, page, position;
};
struct CommitArgs {
  const void* keys;  // C (layers, layer_rows, kv heads · head_dim)
  const void* values;
  void* key_pages;  // C [layer][page][kv head][64][head_dim]
  void* value_pages;
  const CommitTarget* rows;
  const int32_t* kept;  // [row] 0: left out; or null
  int num_rows, layer_rows, num_layers, num_pages, num_kv_heads;
  int head_bytes;  // of one head's key: a multiple of 16
  bool operator==(const CommitArgs&) const = default;
};
void commit(const Stream& stream, const CommitArgs& args);

}  // namespace medusa::cuda
