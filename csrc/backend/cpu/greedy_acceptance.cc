#include "backend/cpu/greedy_acceptance.h"

#include <algorithm>

namespace medusa::cpu {
namespace {

bool looks_at_logits(const AcceptSequence& s) {
  return s.num_logits_rows > 0 &&
         (s.typical || s.draw.temperature > 0 || s.draw.rules.change_anything());
}

// The first child of `row` that holds `token`, or -1.
int child_with_token(const RowBatch& batch, const AcceptSequence& s, int row, int32_t token) {
  for (int child = row + 1; child < s.first_row + s.num_rows; ++child) {
    const auto at = static_cast<size_t>(child);
    if (batch.parents[at] == row && batch.tokens[at] == token) return child;
  }
  return -1;
}

// Marks what is kept: all rows of a chain, of a tree the path along which every token is the
// likeliest at its parent. Returns the last such row. `likeliest`: at the sequence's rows.
int keep_rows(const RowBatch& batch, const AcceptSequence& s, const int32_t* likeliest,
              int32_t* kept) {
  std::fill_n(kept + s.first_row, s.num_rows, s.tree ? 0 : 1);
  if (!s.tree) return s.first_row + s.num_rows - 1;
  int row = s.first_row, child = row;
  while (child >= 0) {
    row = child;
    kept[row] = 1;
    child = child_with_token(batch, s, row, likeliest[row - s.first_row]);
  }
  return row;
}

}  // namespace

bool GreedyAcceptance::accept(Products& products, const Decisions& out,
                              const LogitsProduct& product, const RowBatch& batch,
                              std::span<const AcceptSequence> sequences) {
  if (product.wanted || std::ranges::any_of(sequences, looks_at_logits)) return false;
  const int64_t rows = product.x.rows;
  const auto bytes = static_cast<size_t>(rows) * sizeof(int32_t);
  const Tensor ids{ids_.reserve(bytes), DType::i32, rows, 1};
  products.top_k({values_.reserve(bytes), DType::f32, rows, 1}, ids, product.x, *product.weight);
  for (size_t i = 0; i < sequences.size(); ++i) {
    const AcceptSequence& s = sequences[i];
    const int32_t* likeliest = ids.row<int32_t>(s.first_logits_row);
    const int row = keep_rows(batch, s, likeliest, out.kept.row<int32_t>(0));
    const int drawn = row - s.first_row - (s.num_rows - s.num_logits_rows);
    out.last.row<int32_t>(0)[i] = row;
    out.roots.row<int32_t>(0)[i] = drawn < 0 ? 0 : likeliest[drawn];
  }
  return true;
}

}  // namespace medusa::cpu
