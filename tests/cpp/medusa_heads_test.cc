#include "model/medusa_heads.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "medusa/error.h"
#include "model/model_impl.h"
#include "tiny_model.h"

namespace medusa {
namespace {

constexpr int kHeads = 3, kTopK = 5;

std::vector<int32_t> guesses(const Model& model, const Heads& heads, std::vector<float> hidden,
                             int top_k, std::vector<int32_t> roots = {1, 2}) {
  Backend& backend = *model.impl()->backend;
  HeadsWorkspace workspace(backend, heads.impl()->heads, 2, kHeads, top_k);
  const Tensor rows{hidden.data(), DType::f32, 2, 64};
  const auto ids = heads.impl()->heads.guess(backend, rows, roots, kHeads, workspace);
  return {ids.begin(), ids.end()};
}

struct Fixture {
  testing::TinyModel tiny{11, ComputeType::float32};
  Model model = tiny.load();
  Heads::Source source;
  std::vector<float> hidden;

  Fixture() {
    for (int head = 0; head < kHeads; ++head) {
      source.residual.push_back({{tiny.random({64, 64}, 0.3f), tiny.random({64}, 0.1f)}});
    }
    const HostTensor states = tiny.random({2, 64}, 1.0f);
    hidden.assign(static_cast<const float*>(states.data),
                  static_cast<const float*>(states.data) + 128);
  }
};

TEST(MedusaHeads, trimmed_vocabulary_keeps_the_order_of_what_it_holds) {
  Fixture f;
  const auto full = guesses(f.model, Heads::load(f.model, f.source), f.hidden, 64);
  f.source.token_map = {90, 3, 17, 55, 8, 100, 0, 42};
  const Heads trimmed_heads = Heads::load(f.model, f.source);
  EXPECT_EQ(trimmed_heads.draft_vocab_size(), 8);
  const auto trimmed = guesses(f.model, trimmed_heads, f.hidden, 8);
  for (int row = 0; row < kHeads * 2; ++row) {
    std::vector<int32_t> order;
    for (int i = 0; i < 64; ++i) {
      const int32_t id = full[row * 64 + i];
      const auto& map = f.source.token_map;
      if (std::find(map.begin(), map.end(), id) != map.end()) order.push_back(id);
    }
    for (size_t i = 0; i < order.size(); ++i) EXPECT_EQ(trimmed[row * 8 + i], order[i]);
  }
}

TEST(MedusaHeads, guesses_for_many_rows_are_those_for_each) {
  Fixture f;
  const Heads heads = Heads::load(f.model, f.source);
  const int rows = 70;  // more than one block
  const HostTensor hidden = f.tiny.random({rows, 64}, 1.0f);
  const std::vector<int32_t> roots(rows, 1);
  const auto all = heads.guesses(hidden, roots, kTopK);
  const auto* values = static_cast<const float*>(hidden.data);
  for (int row = 0; row < rows; row += 2) {
    const auto pair = guesses(f.model, heads, {values + row * 64, values + (row + 2) * 64}, kTopK);
    for (int head = 0; head < kHeads; ++head) {
      for (int i = 0; i < 2 * kTopK; ++i) {
        const int at = ((row + i / kTopK) * kHeads + head) * kTopK + i % kTopK;
        EXPECT_EQ(all[at], pair[head * 2 * kTopK + i]);
      }
    }
  }
  EXPECT_THROW(heads.guesses(hidden, std::span(roots).first(3), kTopK), ModelFormatError);
  EXPECT_THROW(heads.guesses(hidden, roots, 65), InvalidArgument);
}

TEST(MedusaHeads, v1_with_the_lm_head_as_projection_is_v2) {
  Fixture f;
  const auto v2 = guesses(f.model, Heads::load(f.model, f.source), f.hidden, kTopK);
  f.source.projection.assign(kHeads, f.tiny.tensors().at("model.embed_tokens.weight"));
  const Heads v1 = Heads::load(f.model, f.source);
  EXPECT_EQ(v1.version(), 1);
  EXPECT_EQ(guesses(f.model, v1, f.hidden, kTopK), v2);
}

// Oracle in double: rows x + silu(W x + U e + b), then the tied lm_head.
TEST(MedusaHeads, grounded_heads_see_the_embedding_of_the_root) {
  Fixture f;
  f.source.grounded = true;
  for (auto& head : f.source.residual) head[0].weight = f.tiny.random({64, 128}, 0.3f);
  const Heads heads = Heads::load(f.model, f.source);
  EXPECT_TRUE(heads.grounded());
  const std::vector<int32_t> roots = {70, 3};
  const auto found = guesses(f.model, heads, f.hidden, kTopK, roots);
  const auto* table =
      static_cast<const float*>(f.tiny.tensors().at("model.embed_tokens.weight").data);
  for (int head = 0; head < kHeads; ++head) {
    const auto* weight = static_cast<const float*>(f.source.residual[head][0].weight.data);
    const auto* bias = static_cast<const float*>(f.source.residual[head][0].bias->data);
    for (int row = 0; row < 2; ++row) {
      std::vector<double> state(64), logits(101);
      for (int n = 0; n < 64; ++n) {
        double z = bias[n];
        for (int k = 0; k < 64; ++k) {
          z += weight[n * 128 + k] * f.hidden[row * 64 + k];
          z += weight[n * 128 + 64 + k] * table[roots[row] * 64 + k];
        }
        state[n] = f.hidden[row * 64 + n] + z / (1 + std::exp(-z));
      }
      for (int id = 0; id < 101; ++id) {
        for (int k = 0; k < 64; ++k) logits[id] += table[id * 64 + k] * state[k];
      }
      for (int rank = 0; rank < kTopK; ++rank) {
        const auto best = std::max_element(logits.begin(), logits.end());
        EXPECT_EQ(found[(head * 2 + row) * kTopK + rank], best - logits.begin());
        *best = -1e9;
      }
    }
  }
}

TEST(MedusaHeads, a_grounded_row_is_the_same_alone_and_among_others) {
  Fixture f;
  const Heads heads = f.tiny.random_heads(f.model, kHeads, false, true);
  const auto both = guesses(f.model, heads, f.hidden, kTopK, {70, 3});
  const auto other = guesses(f.model, heads, f.hidden, kTopK, {70, 4});
  for (int head = 0; head < kHeads; ++head) {
    const auto row = [&](const std::vector<int32_t>& ids, int r) {
      const auto first = ids.begin() + (head * 2 + r) * kTopK;
      return std::vector<int32_t>(first, first + kTopK);
    };
    EXPECT_EQ(row(both, 0), row(other, 0));
    EXPECT_NE(row(both, 1), row(other, 1));
  }
}

TEST(MedusaHeads, refuses_heads_of_another_model) {
  Fixture f;
  const Heads::Source good = f.source;
  f.source.residual[1][0].weight = f.tiny.random({32, 32}, 1.0f);
  EXPECT_THROW(Heads::load(f.model, f.source), ModelFormatError);
  f.source = good;
  f.source.residual[2].push_back(f.source.residual[2][0]);
  EXPECT_THROW(Heads::load(f.model, f.source), ModelFormatError);
  f.source = good;
  f.source.projection = {f.tiny.random({101, 64}, 1.0f)};
  EXPECT_THROW(Heads::load(f.model, f.source), ModelFormatError);
  f.source = good;
  f.source.token_map = {1, 1};
  EXPECT_THROW(Heads::load(f.model, f.source), ModelFormatError);
  f.source.token_map = {101};
  EXPECT_THROW(Heads::load(f.model, f.source), ModelFormatError);
  f.source = good;
  f.source.grounded = true;
  EXPECT_THROW(Heads::load(f.model, f.source), ModelFormatError);
  for (auto& head : f.source.residual) head[0].weight = f.tiny.random({64, 128}, 0.3f);
  EXPECT_NO_THROW(Heads::load(f.model, f.source));
  f.source.grounded = false;
  EXPECT_THROW(Heads::load(f.model, f.source), ModelFormatError);
}

}  // namespace
}  // namespace medusa
