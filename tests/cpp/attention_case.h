#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <numeric>
#include <optional>
#include <vector>

#include "resident.h"

// Attention of sequences in one cache and batch on any back end, and by its definition.
namespace medusa::attention {

struct Shape {
  int heads, kv_heads, head_dim, window;
};

// One sequence of the test: keys and values by row of its history, committed first, fresh after.
struct Sequence {
  int committed;
  std::vector<int> parents;  // of fresh rows, in the sequence; -1: the last committed position
  uint32_t seed;
  int poisoned = -1;  // fresh row whose value is NaN

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

inline std::vector<int> chain(int rows) {
  std::vector<int> parents(static_cast<size_t>(rows));
  std::iota(parents.begin(), parents.end(), -1);
  return parents;
}

// A tree of `rows` nodes: each hangs below a random earlier one.
inline std::vector<int> tree(int rows, uint32_t seed) {
  std::vector<int> parents = {-1};
  std::mt19937 generator(seed);
  for (int r = 1; r < rows; ++r)
    parents.push_back(static_cast<int>(generator() % static_cast<uint32_t>(r)));
  return parents;
}

// Keys or values as numbers, and as rows of a cache's type.
struct Rows {
  Rows(Matrix numbers, DType cache, int head_dim) : wide(std::move(numbers)) {
    if (cache != DType::i8) return;
    const Tensor all = wide;
    const int64_t heads = all.cols / head_dim;
    codes.emplace(DType::i8, all.rows, heads * kv_head_cols(cache, head_dim));
    for (int64_t i = 0; i < all.rows * heads; ++i) {
      encode(all.row<float>(0) + i * head_dim,
             codes->view().row<int8_t>(0) + i * kv_head_cols(cache, head_dim), head_dim);
    }
  }

  const Matrix& rows() const { return codes ? *codes : wide; }
  void poison(int64_t row) {
    const Tensor all = codes ? codes->view() : wide.view();
    std::memset(all.row<char>(row), 0xff, all.row_bytes());
  }

  Matrix wide;
  std::optional<Matrix> codes;

 private:
  // Rounds the numbers to what the codes say.
  static void encode(float* x, int8_t* out, int head_dim) {
    float most = 0;
    for (int i = 0; i < head_dim; ++i) most = std::max(most, std::abs(x[i]));
    const float scale = most / 127;
    for (int i = 0; i < head_dim; ++i) {
      out[i] = static_cast<int8_t>(std::lrint(x[i] / scale));
      x[i] = static_cast<float>(out[i]) * scale;
    }
    std::memcpy(out + head_dim, &scale, sizeof(scale));
  }
};

// Sequences in one cache and batch, run through the verbs.
class Pass {
 public:
  Pass(std::shared_ptr<Backend> backend, const Shape& shape, std::vector<Sequence> sequences)
      : Pass(backend, backend->compute_dtype(), shape, std::move(sequences)) {}
  Pass(std::shared_ptr<Backend> backend, DType cache, const Shape& shape,
       std::vector<Sequence> sequences)
      : shape_(shape), sequences_(std::move(sequences)), backend_(std::move(backend)) {
    int rows = 0;
    for (const Sequence& s : sequences_) {
      const auto total = static_cast<int64_t>(s.committed + s.fresh());
      histories_.push_back(
          {random_matrix(DType::f32, total, int64_t{shape.heads} * shape.head_dim, s.seed),
           Rows(random_matrix(wide(cache), total, kv_cols(), s.seed + 1), cache, shape.head_dim),
           Rows(random_matrix(wide(cache), total, kv_cols(), s.seed + 2), cache, shape.head_dim)});
      if (s.poisoned >= 0) histories_.back().values.poison(s.committed + s.poisoned);
      rows += s.fresh();
    }
    make_cache(cache);
    make_batch(rows);
    attend(rows);
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
        score += h.q.at(s.committed + row, int64_t{head} * shape_.head_dim + i) *
                 h.keys.wide.at(at, col + i);
      }
      scores.push_back(score * kScale);
    }
    const double top = *std::max_element(scores.begin(), scores.end());
    double total = 0;
    for (double& score : scores) total += score = std::exp(score - top);
    std::vector<double> out(static_cast<size_t>(shape_.head_dim));
    for (size_t j = 0; j < rows.size(); ++j) {
      for (size_t d = 0; d < out.size(); ++d) {
        out[d] += scores[j] / total * h.values.wide.at(rows[j], col + static_cast<int64_t>(d));
      }
    }
    return out;
  }

 private:
  static constexpr double kScale = 0.125;
  struct History {
    Matrix q;
    Rows keys, values;
  };

  // What the definition reads: codes times their scales.
  static DType wide(DType cache) { return cache == DType::i8 ? DType::f32 : cache; }

  int64_t kv_cols() const { return int64_t{shape_.kv_heads} * shape_.head_dim; }

  // Pages in an order that no sequence owns consecutively, stale contents all NaN; layer 1 of 2.
  void make_cache(DType dtype) {
    int pages = 0;
    for (const Sequence& s : sequences_) pages += s.committed / kPageSize + 1;
    cache_ = {nullptr, nullptr, dtype, 2, pages, shape_.kv_heads, shape_.head_dim};
    keys_ = stale(cache_.bytes_per_side());
    values_ = stale(cache_.bytes_per_side());
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

  Buffer stale(size_t bytes) const {
    const std::vector<uint8_t> nan(bytes, 0xff);
    Buffer buffer = backend_->allocate(bytes);
    backend_->upload({buffer.data(), DType::f32, 1, static_cast<int64_t>(bytes / 4)}, nan.data());
    return buffer;
  }

  void commit(size_t i) {
    const int count = sequences_[i].committed;
    if (count == 0) return;
    Matrix keys(cache_.dtype, 2 * count, cache_.row_cols());
    Matrix values(cache_.dtype, 2 * count, cache_.row_cols());
    std::vector<CommitRow> rows;
    for (int p = 0; p < count; ++p) {
      keys.copy_row(count + p, histories_[i].keys.rows(), p);
      values.copy_row(count + p, histories_[i].values.rows(), p);
      rows.push_back({p, pages_[i][static_cast<size_t>(p / kPageSize)], p});
    }
    const Resident all_keys(*backend_, keys), all_values(*backend_, values);
    ops::commit(*backend_, cache_, all_keys, all_values, rows);
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

  void attend(int rows) {
    const DType dtype = backend_->compute_dtype();
    Matrix q(DType::f32, rows, int64_t{shape_.heads} * shape_.head_dim);
    Matrix keys(cache_.dtype, rows, cache_.row_cols());
    Matrix values(cache_.dtype, rows, cache_.row_cols());
    for (size_t i = 0; i < sequences_.size(); ++i) {
      for (int r = 0; r < sequences_[i].fresh(); ++r) {
        const int to = batch_.sequences[i].first_row + r, from = sequences_[i].committed + r;
        q.copy_row(to, histories_[i].q, from);
        keys.copy_row(to, histories_[i].keys.rows(), from);
        values.copy_row(to, histories_[i].values.rows(), from);
      }
    }
    const Resident queries(*backend_, q), fresh_keys(*backend_, keys),
        fresh_values(*backend_, values);
    const Resident out(*backend_, Matrix(dtype, rows, int64_t{shape_.heads} * shape_.head_dim));
    ops::tree_attention(*backend_, out,
                        {.q = queries,
                         .keys = fresh_keys,
                         .values = fresh_values,
                         .cache = &cache_,
                         .layer = 1,
                         .num_heads = shape_.heads,
                         .sliding_window = shape_.window,
                         .scale = static_cast<float>(kScale)},
                        batch_);
    out_ = std::make_unique<Matrix>(out.fetch());
  }

  Shape shape_;
  std::vector<Sequence> sequences_;
  std::shared_ptr<Backend> backend_;
  std::vector<History> histories_;
  Buffer keys_, values_;
  std::vector<std::vector<int32_t>> pages_;
  KvLayout cache_;
  RowBatch batch_;
  std::unique_ptr<Matrix> out_;
};

/// The largest error of any row and head, relative to 1 + the value; infinite for NaN.
inline double worst_error(const Pass& run, const Shape& shape,
                          const std::vector<Sequence>& sequences) {
  double worst = 0;
  for (size_t i = 0; i < sequences.size(); ++i) {
    for (int r = 0; r < sequences[i].fresh(); ++r) {
      for (int h = 0; h < shape.heads; ++h) {
        const std::vector<double> head = run.expected(i, r, h);
        for (int d = 0; d < shape.head_dim; ++d) {
          const double expected = head[static_cast<size_t>(d)];
          const double found = run.out().at(run.first_row(i) + r, int64_t{h} * shape.head_dim + d);
          if (std::isnan(found)) return INFINITY;
          worst = std::max(worst, std::abs(found - expected) / (1 + std::abs(expected)));
        }
      }
    }
  }
  return worst;
}

}  // namespace medusa::attention
