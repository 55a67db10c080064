#include "model/kv_cache.h"

#include <gtest/gtest.h>

#include <cstring>
#include <numeric>

#include "model/model_impl.h"
#include "model/rope_table.h"
#include "tiny_model.h"

namespace medusa {
namespace {

constexpr int kPositions = 192;

/// One sequence on the real model, driven row by row.
class Driver {
 public:
  Driver(const Model& model, DType dtype)
      : impl_(*model.impl()),
        rope_(*model.impl()->backend, model.config(), kPositions),
        workspace_(*impl_.backend, model.config(), dtype, 128, 128),
        cache_(*impl_.backend, model.config(), dtype, 1, KvCache::pages_for(kPositions),
               kPositions) {
    cache_.reserve(0, kPositions);
  }

  /// `parents` are row indices, -1 for the first; rows in `keep` are committed. Returns logits.
  std::vector<std::vector<float>> step(const std::vector<int32_t>& tokens,
                                       const std::vector<int32_t>& parents,
                                       const std::vector<int32_t>& keep) {
    RowBatch batch;
    const int committed = cache_.committed(0);
    batch.tokens = tokens;
    batch.parents = parents;
    bool chain = true;
    for (size_t row = 0; row < tokens.size(); ++row) {
      const int parent = parents[row];
      batch.positions.push_back(parent < 0 ? committed : batch.positions[parent] + 1);
      chain &= parent == static_cast<int>(row) - 1;
    }
    const auto rows = static_cast<int>(tokens.size());
    batch.sequences = {{0, rows, committed, cache_.pages(0), chain}};
    impl_.llama.forward(*impl_.backend, batch, cache_.layout(), rope_.view(), workspace_);
    std::vector<int32_t> all(rows);
    std::iota(all.begin(), all.end(), 0);
    impl_.llama.logits(*impl_.backend, all, rows, workspace_);
    std::vector<int32_t> kept(rows, 0);
    for (const int32_t row : keep) kept[row] = 1;
    for (int row = 0; row < rows; ++row) cache_.offer(0, row, batch.positions[row]);
    cache_.commit(*impl_.backend, workspace_, {kept.data(), DType::i32, 1, rows});
    cache_.advance(0, static_cast<int>(keep.size()));
    std::vector<std::vector<float>> logits;
    for (int row = 0; row < rows; ++row) {
      const float* from = workspace_.logits(rows).row<float>(row);
      logits.emplace_back(from, from + impl_.llama.config().vocab_size);
    }
    return logits;
  }

  void prompt(const std::vector<int32_t>& tokens) {
    std::vector<int32_t> parents(tokens.size()), keep(tokens.size());
    std::iota(parents.begin(), parents.end(), -1);
    std::iota(keep.begin(), keep.end(), 0);
    step(tokens, parents, keep);
  }

  const KvCache& cache() const { return cache_; }

 private:
  Model::Impl& impl_;
  RopeTable rope_;
  Workspace workspace_;
  KvCache cache_;
};

void expect_same_content(const KvCache& a, const KvCache& b) {
  ASSERT_EQ(a.committed(0), b.committed(0));
  const KvLayout &la = a.layout(), &lb = b.layout();
  for (int layer = 0; layer < la.num_layers; ++layer) {
    for (int head = 0; head < la.num_kv_heads; ++head) {
      for (int position = 0; position < a.committed(0); ++position) {
        const int page_a = a.pages(0)[position / kPageSize];
        const int page_b = b.pages(0)[position / kPageSize];
        const auto expect_same = [&](const void* x, const void* y, int element, int bytes) {
          ASSERT_EQ(std::memcmp(static_cast<const char*>(x) + element * bytes,
                                static_cast<const char*>(y) + element * bytes, bytes),
                    0);
        };
        const void *keys_a = la.key_tile(layer, page_a, head),
                   *keys_b = lb.key_tile(layer, page_b, head);
        const void *values_a = la.value_tile(layer, page_a, head),
                   *values_b = lb.value_tile(layer, page_b, head);
        const int slot = position % kPageSize, bytes = static_cast<int>(block_bytes(la.dtype));
        for (int i = 0; i < la.head_dim; ++i) {
          expect_same(keys_a, keys_b, i * kPageSize + slot, bytes);
          expect_same(values_a, values_b, slot * la.head_dim + i, bytes);
        }
        if (la.dtype == DType::i8) {
          const int scale = la.head_dim * kPageSize / static_cast<int>(sizeof(float)) + slot;
          expect_same(keys_a, keys_b, scale, sizeof(float));
          expect_same(values_a, values_b, scale, sizeof(float));
        }
      }
    }
  }
}

// The tree: root 5; children 9, 6; under 6: 7, 8; under 7: 11. The path 5, 6, 7 is kept.
class TreeStep : public ::testing::TestWithParam<std::tuple<int, DType>> {};

TEST_P(TreeStep, leaves_the_cache_and_logits_of_plain_decoding) {
  testing::TinyModel tiny;
  const Model model = tiny.load();
  std::mt19937 random(4);
  const auto [size, dtype] = GetParam();
  const auto prompt = testing::random_prompt(random, size, 101);
  Driver plain(model, dtype), tree(model, dtype);
  plain.prompt(prompt);
  tree.prompt(prompt);

  const auto at = tree.step({5, 9, 6, 7, 8, 11}, {-1, 0, 0, 2, 2, 3}, {0, 2, 3});
  EXPECT_EQ(plain.step({5}, {-1}, {0})[0], at[0]);
  EXPECT_EQ(plain.step({6}, {-1}, {0})[0], at[2]);
  EXPECT_EQ(plain.step({7}, {-1}, {0})[0], at[3]);
  expect_same_content(plain.cache(), tree.cache());
  EXPECT_EQ(plain.step({11}, {-1}, {0})[0], at[5]);
}

INSTANTIATE_TEST_SUITE_P(page_borders, TreeStep,
                         ::testing::Combine(::testing::Values(1, 17, 61, 62, 63, 64, 65, 127),
                                            ::testing::Values(DType::bf16, DType::i8)));

TEST(KvCache, gives_pages_out_and_takes_them_back) {
  testing::TinyModel tiny;
  const Model model = tiny.load();
  KvCache cache(*model.impl()->backend, model.config(), DType::bf16, 2, 3, 256);
  EXPECT_TRUE(cache.reserve(0, 65));
  EXPECT_EQ(cache.free_pages(), 1);
  EXPECT_FALSE(cache.reserve(1, 65));
  EXPECT_EQ(cache.free_pages(), 1);
  EXPECT_TRUE(cache.reserve(1, 64));
  EXPECT_TRUE(cache.reserve(0, 128));
  cache.release(0);
  EXPECT_EQ(cache.free_pages(), 2);
}

}  // namespace
}  // namespace medusa
