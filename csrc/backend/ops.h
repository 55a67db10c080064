#pragma once

#include <span>

#include "backend/backend.h"

// The door: each verb of Backend with its shapes, types and ranges checked. Throws InvalidArgument
// naming the verb, what was expected and what was found; behind it nothing is checked again.
namespace medusa::ops {

void embed(Backend& backend, Tensor out, const Weight& table, std::span<const int32_t> ids);
void append_embedding(Backend& backend, Tensor out, Tensor x, const Weight& table, Tensor ids);
void rms_norm(Backend& backend, Tensor out, Tensor x, std::span<const float> weight, float eps);
void linear(Backend& backend, Tensor out, Tensor x, const Weight& weight, Epilogue epilogue);
void rope(Backend& backend, const QkvSplit& split, Tensor qkv, std::span<const int32_t> positions,
          const Rope& rope);
void tree_attention(Backend& backend, Tensor out, const AttentionInputs& in, const RowBatch& batch);
void gather_rows(Backend& backend, Tensor out, Tensor x, Tensor rows);
void linear_top_k(Backend& backend, Tensor values, Tensor ids, Tensor x,
                  std::span<const Weight> weights);
void sample(Backend& backend, std::span<int32_t> ids, Tensor logits,
            std::span<const SampleRow> rows);
void logprobs(Backend& backend, Tensor logits, std::span<const LogprobRow> rows);
void posterior(Backend& backend, Tensor logits, std::span<const PosteriorRow> rows);
bool accept(Backend& backend, const Decisions& out, const LogitsProduct& product,
            const RowBatch& batch, std::span<const AcceptSequence> sequences,
            const TypicalRule& rule);
void commit(Backend& backend, const KvLayout& cache, Tensor keys, Tensor values,
            std::span<const CommitRow> rows, Tensor kept = {});
void go_on(Backend& backend, const NextStep& next, const RowBatch& batch);

}  // namespace medusa::ops
