#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "kernel_case.h"

namespace medusa {
namespace {

class AttentionTest : public testing::TestWithParam<KernelCase> {};
MEDUSA_FOR_EVERY_ISA(AttentionTest);

struct Shape {
  int heads, kv_heads, head_dim, window;
};

// One sequence of the test: keys and values by row of its history, committed first, fresh after.
struct Sequence {
  int committed;
  std::vector<int> parents;  // of fresh rows, in the sequence; -1: the last committed position
  uint32_t seed;

  int fresh() const { return static_cast<int>(parents.size()); }
  bool chain() const {
    for (int r = 0; r < fresh(); ++r) {
      if (parents[static_cast<size_t>(r)] != r - 1) return false;
    }
    return true;
  }
  int depth(int row) const {
    const int parent = parents[static_cast<size_t>(row)];
    return parent < 0 ? 0 : depth(parent) + 1;
  }
  // History rows that `row` sees, by position.
  std::vector<int> seen(int row) const {
    std::vector<int> rows(static_cast<size_t>(committed));
    std::iota(rows.begin(), rows.end(), 0);
    std::vector<int> path;
    for (int at = row; at >= 0; at = parents[static_cast<size_t>(at)]) path.push_back(at);
    for (auto it = path.rbegin(); it != path.rend(); ++it) rows.push_back(committed + *it);
    return rows;
  }
};

std::vector<int> chain(int rows) {
  std::vector<int> parents(static_cast<size_t>(rows));
  std::iota(parents.begin(), parents.end(), -1);
  return parents;
}

// A tree of `rows` nodes: each hangs below a random earlier one.
std::vector<int> tree(int rows, uint32_t seed) {
  std::vector<int> parents = {-1};
  std::mt19937 generator(seed);
  for (int r = 1; r < rows; ++r)
    parents.push_back(static_cast<int>(generator() % static_cast<uint32_t>(r)));
  return parents;
}

// Sequences in one cache and batch, run through the verbs.
class Pass {
 public:
  Pass(const KernelCase& c, const Shape& shape, std::vector<Sequence> sequences, int threads = 2)
      : shape_(shape), sequences_(std::move(sequences)), backend_(c.backend(threads)) {
    int rows = 0;
    for (const Sequence& s : sequences_) {
      const auto total = static_cast<int64_t>(s.committed + s.fresh());
      histories_.push_back(
          {random_matrix(DType::f32, total, int64_t{shape.heads} * shape.head_dim, s.seed),
           random_matrix(c.dtype(), total, kv_cols(), s.seed + 1),
           random_matrix(c.dtype(), total, kv_cols(), s.seed + 2)});
      rows += s.fresh();
    }
    make_cache(c.dtype());
    make_batch(rows);
    out_ = std::make_unique<Matrix>(c.dtype(), rows, int64_t{shape.heads} * shape.head_dim);
    attend(c.dtype(), rows);
  }

  const Matrix& out() const { return *out_; }
  int first_row(size_t sequence) const { return batch_.sequences[sequence].first_row; }

  // One row's head by the definition, in double precision.
  std::vector<double> expected(size_t sequence, int row, int head) const {
    const Sequence& s = sequences_[sequence];
    const History& h = histories_[sequence];
    std::vector<int> rows = s.seen(row);
    if (shape_.window > 0 && static_cast<int>(rows.size()) > shape_.window) {
      rows.erase(rows.begin(), rows.end() - shape_.window);
    }
    const int64_t col = int64_t{head} / (shape_.heads / shape_.kv_heads) * shape_.head_dim;
    std::vector<double> scores;
    for (int at : rows) {
      double score = 0;
      for (int i = 0; i < shape_.head_dim; ++i) {
        score +=
            h.q.at(s.committed + row, int64_t{head} * shape_.head_dim + i) * h.keys.at(at, col + i);
      }
      scores.push_back(score * kScale);
    }
    const double top = *std::max_element(scores.begin(), scores.end());
    double total = 0;
    for (double& score : scores) total += score = std::exp(score - top);
    std::vector<double> out(static_cast<size_t>(shape_.head_dim));
    for (size_t j = 0; j < rows.size(); ++j) {
      for (size_t d = 0; d < out.size(); ++d) {
        out[d] += scores[j] / total * h.values.at(rows[j], col + static_cast<int64_t>(d));
      }
    }
    return out;
  }

 private:
  static constexpr double kScale = 0.125;
  struct History {
    Matrix q, keys, values;
  };

  int64_t kv_cols() const { return int64_t{shape_.kv_heads} * shape_.head_dim; }

  // Pages in an order that no sequence owns consecutively, stale contents all NaN; layer 1 of 2.
  void make_cache(DType dtype) {
    int pages = 0;
    for (const Sequence& s : sequences_) pages += s.committed / kPageSize + 1;
    cache_ = {nullptr, nullptr, dtype, 2, pages, shape_.kv_heads, shape_.head_dim};
    keys_.assign(cache_.bytes_per_side(), 0xff);
    values_.assign(cache_.bytes_per_side(), 0xff);
    cache_.keys = keys_.data();
    cache_.values = values_.data();
    int next = 0;
    for (size_t i = 0; i < sequences_.size(); ++i) {
      std::vector<int32_t> list;
      for (int p = 0; p <= sequences_[i].committed / kPageSize; ++p)
        list.push_back(pages - 1 - next++);
      std::reverse(list.begin(), list.end());
      pages_.push_back(list);
    }
    for (size_t i = 0; i < sequences_.size(); ++i) commit(i);
  }

  void commit(size_t i) {
    const int count = sequences_[i].committed;
    if (count == 0) return;
    Matrix keys(cache_.dtype, 2 * count, kv_cols()), values(cache_.dtype, 2 * count, kv_cols());
    std::vector<CommitRow> rows;
    for (int p = 0; p < count; ++p) {
      keys.copy_row(count + p, histories_[i].keys, p);
      values.copy_row(count + p, histories_[i].values, p);
      rows.push_back({p, pages_[i][static_cast<size_t>(p / kPageSize)], p});
    }
    ops::commit(*backend_, cache_, keys, values, rows);
  }

  void make_batch(int rows) {
    batch_.tokens.resize(static_cast<size_t>(rows));
    int first = 0;
    for (size_t i = 0; i < sequences_.size(); ++i) {
      const Sequence& s = sequences_[i];
      for (int r = 0; r < s.fresh(); ++r) {
        const int parent = s.parents[static_cast<size_t>(r)];
        batch_.positions.push_back(s.committed + s.depth(r));
        batch_.parents.push_back(parent < 0 ? -1 : first + parent);
      }
      batch_.sequences.push_back({first, s.fresh(), s.committed, pages_[i].data(), s.chain()});
      first += s.fresh();
    }
  }

  void attend(DType dtype, int rows) {
    Matrix q(DType::f32, rows, int64_t{shape_.heads} * shape_.head_dim);
    Matrix keys(dtype, rows, kv_cols()), values(dtype, rows, kv_cols());
    for (size_t i = 0; i < sequences_.size(); ++i) {
      for (int r = 0; r < sequences_[i].fresh(); ++r) {
        const int to = batch_.sequences[i].first_row + r, from = sequences_[i].committed + r;
        q.copy_row(to, histories_[i].q, from);
        keys.copy_row(to, histories_[i].keys, from);
        values.copy_row(to, histories_[i].values, from);
      }
    }
    ops::tree_attention(*backend_, *out_,
                        {.q = q,
                         .keys = keys,
                         .values = values,
                         .cache = &cache_,
                         .layer = 1,
                         .num_heads = shape_.heads,
                         .sliding_window = shape_.window,
                         .scale = static_cast<float>(kScale)},
                        batch_);
  }

  Shape shape_;
  std::vector<Sequence> sequences_;
  std::shared_ptr<Backend> backend_;
  std::vector<History> histories_;
  std::vector<uint8_t> keys_, values_;
  std::vector<std::vector<int32_t>> pages_;
  KvLayout cache_;
  RowBatch batch_;
  std::unique_ptr<Matrix> out_;
};

void expect_close(const KernelCase& c, const Shape& shape, const std::vector<Sequence>& sequences) {
  const Pass run(c, shape, sequences);
  double worst = 0;
  for (size_t i = 0; i < sequences.size(); ++i) {
    for (int r = 0; r < sequences[i].fresh(); ++r) {
      for (int h = 0; h < shape.heads; ++h) {
        const std::vector<double> head = run.expected(i, r, h);
        for (int d = 0; d < shape.head_dim; ++d) {
          const double expected = head[static_cast<size_t>(d)];
          const double found = run.out().at(run.first_row(i) + r, int64_t{h} * shape.head_dim + d);
          worst = std::max(worst, std::abs(found - expected) / (1 + std::abs(expected)));
          ASSERT_FALSE(std::isnan(found));
        }
      }
    }
  }
  // One rounding of the result; queries and weights may be rounded too, where bf16 is multiplied.
  EXPECT_LT(worst, 1e-5 + 2 * c.rounding()) << shape.heads << "/" << shape.kv_heads << " heads of "
                                            << shape.head_dim << ", window " << shape.window;
  EXPECT_TRUE(run.out().guards_intact());
}

TEST_P(AttentionTest, equals_the_definition) {
  for (const Shape shape : {Shape{3, 1, 64, 0}, Shape{4, 4, 16, 0}, Shape{8, 2, 80, 0},
                            Shape{8, 1, 128, 0}, Shape{3, 1, 64, 40}, Shape{2, 2, 32, 100}}) {
    expect_close(GetParam(), shape, {{0, chain(1), 1}, {63, tree(20, 1), 2}, {64, chain(3), 3}});
    expect_close(GetParam(), shape, {{130, tree(70, 2), 4}, {0, chain(70), 5}, {65, chain(1), 6}});
  }
}

TEST_P(AttentionTest, reads_long_contexts) {
  expect_close(GetParam(), {3, 1, 64, 0}, {{700, tree(9, 3), 7}, {511, chain(5), 8}});
  expect_close(GetParam(), {3, 1, 64, 256}, {{700, tree(9, 3), 7}, {0, chain(400), 8}});
}

// A row's history in other clothes: cached or fresh, alone or among others, any threads.
TEST_P(AttentionTest, row_depends_on_its_own_history_only) {
  for (const Shape shape : {Shape{3, 1, 64, 0}, Shape{4, 2, 80, 50}}) {
    const uint32_t seed = 20;
    const Pass cached(GetParam(), shape, {{150, chain(1), seed}}, 1);
    for (int committed : {0, 1, 63, 64, 100, 128, 149}) {
      for (int threads : {1, 2, 3}) {
        const Pass run(GetParam(), shape,
                       {{77, tree(30, 4), 90}, {committed, chain(151 - committed), seed}}, threads);
        const int last = run.first_row(1) + 150 - committed;
        EXPECT_TRUE(cached.out().same_row(0, run.out(), last)) << committed << ", " << threads;
      }
    }
  }
}

TEST_P(AttentionTest, tree_row_equals_its_path_as_a_chain) {
  const Shape shape{6, 2, 64, 0};
  for (int committed : {0, 61, 64, 200}) {
    // Nodes 0-2-4-5 are a path; 1, 3 and 6 are others.
    const std::vector<int> parents = {-1, 0, 0, 1, 2, 4, 3};
    const Pass bushy(GetParam(), shape, {{committed, parents, 30}, {10, chain(2), 31}});
    // The same rows as a tree without the others: histories are drawn row by row, so the path's
    // rows are compared through a tree that keeps the numbering but grows nothing else.
    std::vector<int> alone = {-1, -1, 0, -1, 2, 4, -1};
    const Pass path(GetParam(), shape, {{committed, alone, 30}}, 1);
    for (int row : {0, 2, 4, 5}) EXPECT_TRUE(bushy.out().same_row(row, path.out(), row)) << row;
  }
}

}  // namespace
}  // namespace medusa
