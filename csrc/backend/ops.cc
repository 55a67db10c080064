#include "backend/ops.h"

#include <algorithm>

#include "base/check.h"

namespace medusa::ops {
namespace {

constexpr int64_t kColumnUnit = 16;
constexpr int kMaxHeadDim = 512;

void expect_shape(const char* what, const Tensor& t, int64_t rows, int64_t cols) {
  check(t.rows == rows && t.cols == cols && (t.data != nullptr || rows * cols == 0), what,
        ": expected shape (", rows, ", ", cols, "), found (", t.rows, ", ", t.cols, ")");
}

void expect_dtype(const char* what, const Tensor& t, DType dtype) {
  check(t.dtype == dtype, what, ": expected ", name(dtype), ", found ", name(t.dtype));
}

void expect(const char* what, const Tensor& t, DType dtype, int64_t rows, int64_t cols) {
  expect_dtype(what, t, dtype);
  expect_shape(what, t, rows, cols);
}

void expect_multiple(const char* what, int64_t value, int64_t unit) {
  check(value > 0 && value % unit == 0, what, ": expected a multiple of ", unit, ", found ", value);
}

void expect_range(const char* what, int64_t value, int64_t least, int64_t most) {
  check(value >= least && value <= most, what, ": expected ", least, " to ", most, ", found ",
        value);
}

void expect_below(const char* what, int64_t value, int64_t limit) {
  check(value >= 0 && value < limit, what, ": expected 0 to ", limit - 1, ", found ", value);
}

void expect_cache(const char* what, const Backend& backend, const KvLayout& cache) {
  check(backend.supports_cache(cache.dtype), what, ": expected a cache of ",
        name(backend.compute_dtype()), ", found ", name(cache.dtype));
  expect_multiple(what, cache.head_dim, kColumnUnit);
  check(cache.num_kv_heads > 0 && cache.num_layers > 0, what, ": empty cache layout");
}

void expect_ids(const char* what, std::span<const int32_t> ids, int64_t vocab) {
  for (const int32_t id : ids) expect_below(what, id, vocab);
}

void expect_rules(const LogitsRules& rules, int64_t vocab) {
  expect_ids("sample allowed", rules.allowed, vocab);
  expect_ids("sample banned", rules.banned, vocab);
  for (const auto& [id, bias] : rules.bias) expect_below("sample bias", id, vocab);
  for (const std::vector<int32_t>& word : rules.bad_words) {
    check(!word.empty(), "sample bad_words: expected no empty word");
    expect_ids("sample bad_words", word, vocab);
  }
  expect_ids("sample prompt", rules.prompt, vocab);
  expect_ids("sample answer", rules.answer, vocab);
  expect_ids("sample path", rules.path, vocab);
}

void expect_rows(const RowBatch& batch, const SequenceRows& sequence, int num_pages) {
  const int64_t last = int64_t{sequence.first_row} + sequence.num_rows;
  check(sequence.first_row >= 0 && sequence.num_rows >= 0 && last <= batch.num_rows(),
        "tree_attention: a sequence's rows exceed the batch's ", batch.num_rows());
  for (int p = 0; p < sequence.committed; p += kPageSize) {
    expect_below("tree_attention page", sequence.pages[p / kPageSize], num_pages);
  }
  for (int64_t r = sequence.first_row; r < last; ++r) {
    const auto i = static_cast<size_t>(r);
    const int depth = batch.positions[i] - sequence.committed, parent = batch.parents[i];
    const bool root = depth == 0;
    const bool linked = parent >= sequence.first_row && parent < r &&
                        batch.positions[static_cast<size_t>(parent)] == batch.positions[i] - 1 &&
                        (!sequence.chain || parent == r - 1);
    check(depth >= 0 && (root ? parent < 0 : linked), "tree_attention: row ", r, " at position ",
          batch.positions[i], " cannot have parent ", parent);
    check(!sequence.chain || depth == r - sequence.first_row, "tree_attention: row ", r,
          " of a chain cannot be at position ", batch.positions[i]);
  }
}

}  // namespace

void embed(Backend& backend, Tensor out, const Weight& table, std::span<const int32_t> ids) {
  expect("embed out", out, DType::f32, static_cast<int64_t>(ids.size()), table.in_features);
  for (int32_t id : ids) expect_below("embed id", id, table.out_features);
  backend.embed(out, table, ids);
}

void append_embedding(Backend& backend, Tensor out, Tensor x, const Weight& table, Tensor ids) {
  const DType compute = backend.compute_dtype();
  expect("append_embedding ids", ids, DType::i32, 1, ids.cols);
  expect("append_embedding x", x, compute, ids.cols, x.cols);
  expect("append_embedding out", out, compute, ids.cols, x.cols + table.in_features);
  check(out.data != x.data, "append_embedding: out must not be x");
  backend.append_embedding(out, x, table, ids);
}

void rms_norm(Backend& backend, Tensor out, Tensor x, std::span<const float> weight, float eps) {
  expect_dtype("rms_norm x", x, DType::f32);
  check(out.dtype == DType::f32 || out.dtype == backend.compute_dtype(),
        "rms_norm out: expected F32 or ", name(backend.compute_dtype()), ", found ",
        name(out.dtype));
  expect_shape("rms_norm out", out, x.rows, x.cols);
  expect_multiple("rms_norm columns", x.cols, kColumnUnit);
  check(static_cast<int64_t>(weight.size()) == x.cols, "rms_norm weight: expected ", x.cols,
        " elements, found ", weight.size());
  backend.rms_norm(out, x, weight.data(), eps);
}

void linear(Backend& backend, Tensor out, Tensor x, const Weight& weight, Epilogue epilogue) {
  const DType compute = backend.compute_dtype();
  expect("linear x", x, compute, x.rows, weight.in_features);
  const bool narrow = epilogue == Epilogue::silu_mul || epilogue == Epilogue::residual_silu;
  const int64_t columns =
      epilogue == Epilogue::silu_mul ? weight.out_features / 2 : weight.out_features;
  expect("linear out", out, narrow ? compute : DType::f32, x.rows, columns);
  if (epilogue == Epilogue::silu_mul) {
    expect_multiple("linear silu_mul out_features", weight.out_features, 2 * kColumnUnit);
  }
  check(epilogue != Epilogue::residual_silu || weight.out_features <= weight.in_features,
        "linear residual_silu: expected out_features of at most the in_features, found (",
        weight.out_features, ", ", weight.in_features, ")");
  check(out.data != x.data, "linear: out must not be x");
  backend.linear(out, x, weight, epilogue);
}

void rope(Backend& backend, const QkvSplit& split, Tensor qkv, std::span<const int32_t> positions,
          const Rope& rope) {
  const int64_t q_cols = int64_t{split.num_heads} * split.head_dim;
  const int64_t kv_cols = int64_t{split.num_kv_heads} * split.head_dim;
  const DType cache = split.keys.dtype;
  const int64_t cache_cols = split.num_kv_heads * kv_head_cols(cache, split.head_dim);
  check(backend.supports_cache(cache), "rope keys: expected ", name(backend.compute_dtype()),
        ", found ", name(cache));
  expect_multiple("rope head_dim", split.head_dim, kColumnUnit);
  check(split.head_dim <= kMaxHeadDim, "rope head_dim: expected at most ", kMaxHeadDim, ", found ",
        split.head_dim);
  expect("rope qkv", qkv, DType::f32, static_cast<int64_t>(positions.size()), q_cols + 2 * kv_cols);
  expect("rope q", split.q, DType::f32, qkv.rows, q_cols);
  expect("rope keys", split.keys, cache, qkv.rows, cache_cols);
  expect("rope values", split.values, cache, qkv.rows, cache_cols);
  backend.rope(split, qkv, positions, rope);
}

void tree_attention(Backend& backend, Tensor out, const AttentionInputs& in,
                    const RowBatch& batch) {
  check(in.cache != nullptr, "tree_attention: no cache");
  expect_cache("tree_attention", backend, *in.cache);
  const int64_t kv_cols = in.cache->row_cols();
  check(in.num_heads > 0 && in.num_heads % in.cache->num_kv_heads == 0,
        "tree_attention heads: expected a multiple of ", in.cache->num_kv_heads, ", found ",
        in.num_heads);
  expect_below("tree_attention layer", in.layer, in.cache->num_layers);
  expect("tree_attention q", in.q, DType::f32, batch.num_rows(),
         int64_t{in.num_heads} * in.cache->head_dim);
  expect("tree_attention keys", in.keys, in.cache->dtype, batch.num_rows(), kv_cols);
  expect("tree_attention values", in.values, in.cache->dtype, batch.num_rows(), kv_cols);
  expect("tree_attention out", out, backend.compute_dtype(), in.q.rows, in.q.cols);
  for (const SequenceRows& sequence : batch.sequences) {
    expect_rows(batch, sequence, in.cache->num_pages);
  }
  backend.tree_attention(out, in, batch);
}

void gather_rows(Backend& backend, Tensor out, Tensor x, Tensor rows) {
  expect("gather_rows rows", rows, DType::i32, 1, rows.cols);
  expect("gather_rows out", out, x.dtype, rows.cols, x.cols);
  backend.gather_rows(out, x, rows);
}

void linear_top_k(Backend& backend, Tensor values, Tensor ids, Tensor x,
                  std::span<const Weight> weights) {
  const auto shares = static_cast<int64_t>(weights.size());
  check(shares > 0 && x.rows % shares == 0, "linear_top_k: expected rows for each of ", shares,
        " weights, found ", x.rows);
  const int64_t vocab = weights[0].out_features;
  for (const Weight& weight : weights) {
    expect("linear_top_k x", x, backend.compute_dtype(), x.rows, weight.in_features);
    check(weight.out_features == vocab, "linear_top_k weights: expected ", vocab,
          " rows of each, found ", weight.out_features);
  }
  expect("linear_top_k values", values, DType::f32, x.rows, values.cols);
  expect("linear_top_k ids", ids, DType::i32, x.rows, values.cols);
  expect_range("linear_top_k", values.cols, 1, std::min<int64_t>(kMaxTopK, vocab));
  backend.linear_top_k(values, ids, x, weights);
}

void sample(Backend& backend, std::span<int32_t> ids, Tensor logits,
            std::span<const SampleRow> rows) {
  expect_dtype("sample logits", logits, DType::f32);
  check(ids.size() == rows.size(), "sample ids: expected ", rows.size(), ", found ", ids.size());
  for (const SampleRow& row : rows) {
    expect_below("sample row", row.row, logits.rows);
    expect_rules(row.rules, logits.cols);
  }
  backend.sample(ids, logits, rows);
}

void logprobs(Backend& backend, Tensor logits, std::span<const LogprobRow> rows) {
  expect_dtype("logprobs logits", logits, DType::f32);
  for (const LogprobRow& row : rows) {
    expect_below("logprobs row", row.row, logits.rows);
    expect_below("logprobs token", row.token, logits.cols);
    const auto most = static_cast<size_t>(std::min<int64_t>(kMaxTopK, logits.cols));
    check(!row.out.empty() && row.out.size() <= 1 + most, "logprobs out: expected 1 to ", 1 + most,
          " entries, found ", row.out.size());
  }
  backend.logprobs(logits, rows);
}

void posterior(Backend& backend, Tensor logits, std::span<const PosteriorRow> rows) {
  expect_dtype("posterior logits", logits, DType::f32);
  for (const PosteriorRow& row : rows) {
    expect_below("posterior row", row.draw.row, logits.rows);
    expect_rules(row.draw.rules, logits.cols);
    for (const int32_t token : row.tokens) expect_below("posterior token", token, logits.cols);
    check(row.log_probs.size() == row.tokens.size() && row.entropy != nullptr,
          "posterior: expected room for ", row.tokens.size(),
          " log-probabilities and the entropy, found ", row.log_probs.size());
  }
  backend.posterior(logits, rows);
}

bool accept(Backend& backend, const Decisions& out, const LogitsProduct& product,
            const RowBatch& batch, std::span<const AcceptSequence> sequences,
            const TypicalRule& rule) {
  const int64_t rows = product.x.rows, vocab = product.weight->out_features;
  const auto count = static_cast<int64_t>(sequences.size());
  expect("accept kept", out.kept, DType::i32, 1, batch.num_rows());
  expect("accept last", out.last, DType::i32, 1, count);
  expect("accept roots", out.roots, DType::i32, 1, count);
  expect("accept x", product.x, backend.compute_dtype(), rows, product.weight->in_features);
  expect("accept logits", product.logits, DType::f32, rows, vocab);
  expect_ids("accept token", batch.tokens, vocab);
  for (const AcceptSequence& s : sequences) {
    expect_below("accept first row", s.first_row, batch.num_rows());
    expect_range("accept rows", s.num_rows, 1, batch.num_rows() - s.first_row);
    expect_range("accept logits rows", s.num_logits_rows, s.tree ? s.num_rows : 0, s.num_rows);
    expect_range("accept logits", s.first_logits_row, 0, rows - s.num_logits_rows);
    expect_rules(s.draw.rules, vocab);
  }
  return backend.accept(out, product, batch, sequences, rule);
}

void commit(Backend& backend, const KvLayout& cache, Tensor keys, Tensor values,
            std::span<const CommitRow> rows, Tensor kept) {
  expect_cache("commit", backend, cache);
  const int64_t kv_cols = cache.row_cols();
  expect("commit keys", keys, cache.dtype, keys.rows, kv_cols);
  expect("commit values", values, cache.dtype, keys.rows, kv_cols);
  check(keys.rows % cache.num_layers == 0, "commit keys: expected rows of ", cache.num_layers,
        " layers, found ", keys.rows);
  for (const CommitRow& row : rows) {
    expect_below("commit row", row.row, keys.rows / cache.num_layers);
    expect_below("commit page", row.page, cache.num_pages);
    check(row.position >= 0, "commit position: found ", row.position);
    if (kept.data != nullptr) expect_below("commit row", row.row, kept.cols);
  }
  if (kept.data != nullptr) expect("commit kept", kept, DType::i32, 1, kept.cols);
  backend.commit(cache, keys, values, rows, kept);
}

void go_on(Backend& backend, const NextStep& next, const RowBatch& batch) {
  const auto count = static_cast<int64_t>(batch.sequences.size());
  expect("go_on kept", next.decisions.kept, DType::i32, 1, batch.num_rows());
  expect("go_on roots", next.decisions.roots, DType::i32, 1, count);
  check(static_cast<int64_t>(next.sources.size()) == batch.num_rows(), "go_on sources: expected ",
        batch.num_rows(), ", found ", next.sources.size());
  for (const int32_t source : next.sources) {
    expect_range("go_on source", source, -1, next.guesses.rows * next.guesses.cols - 1);
  }
  check(static_cast<int64_t>(next.sequences.size()) == count, "go_on sequences: expected ", count,
        ", found ", next.sequences.size());
  for (size_t i = 0; i < next.sequences.size(); ++i) {
    const NextSequence& s = next.sequences[i];
    expect_below("go_on decision", s.decision, count);
    expect_range("go_on last start", s.last_start, batch.sequences[i].committed, INT32_MAX);
  }
  backend.go_on(next, batch);
}

}  // namespace medusa::ops
