#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "backend/kv_layout.h"
#include "backend/logits_rules.h"
#include "backend/row_batch.h"
#include "backend/typical_rule.h"
#include "backend/weight.h"
#include "base/function_ref.h"
#include "medusa/config.h"
#include "medusa/sampling.h"
#include "tensor/buffer.h"
#include "tensor/tensor.h"

namespace medusa {

/// What linear() does with acc = x · Wᵀ + bias. C is the compute type.
enum class Epilogue : uint8_t {
  store,          // out f32 (rows, N) = acc
  add,            // out f32 (rows, N) += acc: the residual stream
  silu_mul,       // out C (rows, N / 2) = silu(gate) · up, for an interleaved weight
  residual_silu,  // out C (rows, N) = x's first N <= K columns + silu(acc): a Medusa ResBlock
};

/// Rotary embedding: cos and sin tables f32 (max positions, head_dim / 2) in the back end's memory.
struct Rope {
  const float* cos = nullptr;
  const float* sin = nullptr;
  bool interleaved = false;
};

/// One layer's split of a packed qkv product. Norm weights, in the back end's memory, are f32
/// (head_dim) or null (Qwen3).
struct QkvSplit {
  Tensor q;       // out f32 (rows, heads · head_dim), rotated
  Tensor keys;    // out, of the cache's type (rows, KvLayout::row_cols()), rotated
  Tensor values;  // out, as keys
  const float* q_norm = nullptr;
  const float* k_norm = nullptr;
  float norm_eps = 0;
  int num_heads = 0;
  int num_kv_heads = 0;
  int head_dim = 0;
};

/// One layer's attention inputs.
struct AttentionInputs {
  Tensor q;       // f32 (rows, heads · head_dim)
  Tensor keys;    // of the cache's type (rows, KvLayout::row_cols()), the batch's fresh keys
  Tensor values;  // as keys
  const KvLayout* cache = nullptr;
  int layer = 0;
  int num_heads = 0;
  int sliding_window = 0;  // 0: all positions
  float scale = 0;         // of q · k
};

/// Puts fresh row `row` of the batch into slot `position % kPageSize` of `page`.
struct CommitRow {
  int32_t row;
  int32_t page;
  int32_t position;
};

/// How one row's next token is drawn. The noise depends on (seed, position, token id) alone.
struct SampleRow {
  int64_t row = 0;        // of the logits
  float temperature = 0;  // 0: argmax, lowest id on ties
  float top_p = 1;
  int top_k = 0;
  float min_p = 0;
  uint64_t seed = 0;
  int64_t position = 0;  // of the token that is drawn
  LogitsRules rules = {};
};

/// One row of logits and a token drawn from it. out[0] is the token's, out[1 ...] are those of the
/// likeliest ids, best first.
struct LogprobRow {
  int64_t row = 0;
  int32_t token = 0;
  std::span<TokenLogprob> out = {};  // 1 to 1 + kMaxTopK
};

/// One row of logits and tokens whose probabilities are asked for. Of `draw`, filters and noise
/// have no part in it: temperature, and what changes logits before it, do.
struct PosteriorRow {
  SampleRow draw;
  std::span<const int32_t> tokens = {};
  std::span<float> log_probs = {};  // out (tokens.size()), natural; -infinity: impossible
  float* entropy = nullptr;         // out, in nats
};

/// Logits as the product that makes them, x · Wᵀ + bias: a back end may answer without writing them
/// down.
struct LogitsProduct {
  Tensor x;                        // C (rows, K)
  const Weight* weight = nullptr;  // (vocab, K)
  Tensor logits;                   // f32 (rows, vocab): room for them
  bool wanted = false;             // whether they are looked at afterwards
};

/// What acceptance decides, where commit() and heads find it: i32 in the back end's memory.
struct Decisions {
  Tensor kept;   // (1, rows of the batch) 1: accepted, else 0
  Tensor last;   // (1, sequences) the last accepted row
  Tensor roots;  // (1, sequences) the token after it; anything where no logits were computed
};

/// One sequence's rows in a step, for accept(). Of a chain all rows are kept, of a tree those of
/// one path from its first row down.
struct AcceptSequence {
  int first_row = 0;
  int num_rows = 0;
  int num_logits_rows = 0;   // its last rows; 0: no token is drawn
  int first_logits_row = 0;  // of the logits
  bool tree = false;
  bool typical = false;  // judged by the typical rule, the next root by argmax; else exactly
  SampleRow draw = {};   // at its first logits row; position + 1 for each further node of a path
};

/// One sequence of a step that may be followed by another of its shape.
struct NextSequence {
  int decision = 0;    // its place among the Decisions
  int last_start = 0;  // most positions in the cache that a step of this shape may begin with
  std::span<const int32_t> pages = {};        // of all positions that such steps may commit
  std::span<const int32_t> stop_tokens = {};  // no step follows one that accepted any
};

/// How the next step's rows follow from what this one decides: the same rows, each sequence as many
/// positions further on as it kept rows.
struct NextStep {
  Decisions decisions;
  Tensor guesses;                    // i32 (…, top_k), in the back end's memory
  Tensor token_map;                  // i32 (1, ids) of guessed ids; empty: they are tokens
  std::span<const int32_t> sources;  // (rows) a token's place in `guesses`, -1: the next root
  std::span<const NextSequence> sequences;  // as the batch's
};

/// Most ids linear_top_k() gives.
inline constexpr int kMaxTopK = 64;

/// One device's arithmetic. Calls are in stream order and from one thread at a time (who shares a
/// back end, locks), views never own, shapes were checked by ops.
/// Law: a row's result depends on that row's own inputs alone.
class Backend {
 public:
  virtual ~Backend() = default;
  virtual std::string name() const = 0;
  virtual int num_threads() const = 0;
  virtual DType compute_dtype() const = 0;
  // Types of the key/value cache: the compute type, and perhaps i8.
  virtual bool supports_cache(DType dtype) const { return dtype == compute_dtype(); }

  // Memory. Tensors may lie where the host cannot read them.
  virtual Buffer allocate(size_t bytes) = 0;  // zeroed, 64-byte aligned
  virtual size_t default_cache_bytes() const = 0;
  virtual void upload(Tensor out, const void* from) = 0;  // `from` may change afterwards
  // What a tensor holds, for the host, until the next call; on the CPU the tensor itself.
  virtual const void* download(Tensor x) = 0;
  virtual Weight prepare_weight(const WeightSource& source) = 0;

  // Runs `body`, whose verbs may wait for one another on the device: what it downloads can be read
  // when replay() returns.
  virtual void replay(FunctionRef<void()> body) = 0;
  // Steps that this back end may be ahead of its caller, where go_on() allows it; 0: it is never.
  virtual int steps_ahead() const { return 0; }
  // Last in a replay's body, after its one download: steps that follow as `next` says may begin
  // before they are asked for. A later replay() of the same verbs with the same inputs takes the
  // result; any other verb ends them first. They commit beyond what was replayed, where nobody
  // looks.
  virtual void go_on(const NextStep& /*next*/, const RowBatch& /*batch*/) {}
  // Ends them. Before memory goes that they may use.
  virtual void rest() {}
  // out i32 (1, 2): the device's clock, nanoseconds in 64 bits, when all before is done.
  virtual void stamp(Tensor out) = 0;

  // Layers. Token ids and rows that are tensors are i32 (1, count), and not checked.
  virtual void embed(Tensor out, const Weight& table, std::span<const int32_t> ids) = 0;
  // out C (rows, K + E): x's row, then the embedding of its id.
  virtual void append_embedding(Tensor out, Tensor x, const Weight& table, Tensor ids) = 0;
  virtual void rms_norm(Tensor out, Tensor x, const float* weight, float eps) = 0;
  virtual void linear(Tensor out, Tensor x, const Weight& weight, Epilogue epilogue) = 0;
  virtual void rope(const QkvSplit& split, Tensor qkv, std::span<const int32_t> positions,
                    const Rope& rope) = 0;
  virtual void tree_attention(Tensor out, const AttentionInputs& in, const RowBatch& batch) = 0;

  // Decoding.
  virtual void gather_rows(Tensor out, Tensor x, Tensor rows) = 0;
  // The highest of x · Wᵀ + bias, best first; ties: lowest id. Equal shares of the rows go with one
  // weight each.
  virtual void linear_top_k(Tensor values, Tensor ids, Tensor x,
                            std::span<const Weight> weights) = 0;
  virtual void sample(std::span<int32_t> ids, Tensor logits, std::span<const SampleRow> rows) = 0;
  virtual void logprobs(Tensor logits, std::span<const LogprobRow> rows) = 0;
  virtual void posterior(Tensor logits, std::span<const PosteriorRow> rows) = 0;
  // Computes logits, as far as they are needed, and decides for all sequences at once, on the
  // device. False, with nothing done, where this back end cannot, or not for these sequences: they
  // are to be walked with linear(), sample() and posterior().
  virtual bool accept(const Decisions& out, const LogitsProduct& product, const RowBatch& batch,
                      std::span<const AcceptSequence> sequences, const TypicalRule& rule) = 0;
  // Those of `rows` that are kept, as in Decisions; without a tensor all. keys, values: (layers ·
  // rows, …).
  virtual void commit(const KvLayout& cache, Tensor keys, Tensor values,
                      std::span<const CommitRow> rows, Tensor kept) = 0;
};

/// The fastest CPU back end this machine runs, or the one MEDUSA_CPU_ISA names.
std::shared_ptr<Backend> make_cpu_backend(const LoadOptions& options);

/// The CUDA back end on one of the machine's devices. Throws DeviceError, with advice, where there
/// is none or this build has none.
std::shared_ptr<Backend> make_cuda_backend(const LoadOptions& options, int device);

/// The one that options.device names.
std::shared_ptr<Backend> make_backend(const LoadOptions& options);

}  // namespace medusa
