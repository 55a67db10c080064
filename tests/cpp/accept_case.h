#pragma once

#include <algorithm>
#include <optional>
#include <random>
#include <vector>

#include "linear_case.h"
#include "medusa/tree.h"
#include "resident.h"

namespace medusa {

inline constexpr TypicalRule kAcceptRule{-1.6f, -0.7f};

/// A sequence of a step.
struct Asked {
  Tree tree = Tree::root_only();
  int prompt = 0;  // > 0: a chunk of so many rows instead
  bool draws = true, typical = false;
  float temperature = 0;
};

/// Decisions, on the host.
struct Decided {
  std::vector<int32_t> kept, last, roots;
  bool operator==(const Decided&) const = default;
};

/// A batch, the product that makes its logits, and what acceptance is told. Its definition is what
/// sample() and posterior() say at each node, and the rules of decode/accept.h and
/// backend/typical_rule.h.
class AcceptStep {
 public:
  AcceptStep(Backend& backend, const std::vector<Asked>& asked, unsigned seed)
      : backend_(backend), random_(seed), lm_head_(backend, kVocab, kHidden, seed) {
    for (const Asked& a : asked) add(a);
    x_.emplace(backend, random_matrix(backend.compute_dtype(), num_logits_, kHidden, seed, 2.0f));
    room_.emplace(backend, Matrix(DType::f32, num_logits_, kVocab));
    logits_.emplace(backend, Matrix(DType::f32, num_logits_, kVocab));
    ops::linear(backend, *logits_, *x_, lm_head_.packed, Epilogue::store);
  }

  LogitsProduct product(bool wanted = false) const {
    return {*x_, &lm_head_.packed, *room_, wanted};
  }
  const RowBatch& batch() const { return batch_; }
  const Resident& logits() const { return *logits_; }
  const Resident& room() const { return *room_; }

  Decided decide(bool wanted = false) {
    const auto count = static_cast<int64_t>(sequences_.size());
    const Resident kept(backend_, Matrix(DType::i32, 1, batch_.num_rows())),
        last(backend_, Matrix(DType::i32, 1, count)), roots(backend_, Matrix(DType::i32, 1, count));
    EXPECT_TRUE(ops::accept(backend_, {kept, last, roots}, product(wanted), batch_, sequences_,
                            kAcceptRule));
    const auto values = [](const Resident& from) {
      const Matrix host = from.fetch();
      const auto* first = host.view().row<int32_t>(0);
      return std::vector<int32_t>(first, first + host.view().cols);
    };
    return {values(kept), values(last), values(roots)};
  }

  Decided expected() {
    Decided out{std::vector<int32_t>(batch_.tokens.size()), {}, {}};
    for (size_t i = 0; i < sequences_.size(); ++i) {
      const AcceptSequence& s = sequences_[i];
      const int end = !s.tree ? s.num_rows - 1 : s.typical ? judged_end(i) : exact_end(i);
      out.last.push_back(s.first_row + end);
      out.roots.push_back(s.num_logits_rows > 0 ? draw(s, end) : 0);
      for (int row = 0; row < s.num_rows && !s.tree; ++row) out.kept[s.first_row + row] = 1;
      for (int node = end; s.tree && node >= 0; node = trees_[i].parents()[node]) {
        out.kept[s.first_row + node] = 1;
      }
    }
    return out;
  }

  std::vector<AcceptSequence>& sequences() { return sequences_; }

 private:
  static constexpr int64_t kVocab = 9;  // so few that drafted tokens are often drawn
  static constexpr int64_t kHidden = 32;

  void add(const Asked& a) {
    const int committed = static_cast<int>(random_() % 100);
    const auto first = static_cast<int>(batch_.num_rows());
    const auto token = [&] { return static_cast<int32_t>(random_() % kVocab); };
    if (a.prompt > 0) {
      std::vector<int32_t> chunk(a.prompt);
      std::ranges::generate(chunk, token);
      batch_.add_chain(chunk, committed);
    }
    for (int node = 0; a.prompt == 0 && node < a.tree.size(); ++node) {
      const int parent = a.tree.parents()[node];
      batch_.add_row(token(), committed + a.tree.depths()[node], parent < 0 ? -1 : first + parent);
    }
    const int rows = static_cast<int>(batch_.num_rows()) - first;
    const int drawn = a.prompt == 0 ? rows : a.draws ? 1 : 0;
    sequences_.push_back({.first_row = first,
                          .num_rows = rows,
                          .num_logits_rows = drawn,
                          .first_logits_row = static_cast<int>(num_logits_),
                          .tree = a.prompt == 0,
                          .typical = a.typical,
                          .draw = {.temperature = a.temperature, .seed = random_()}});
    trees_.push_back(a.tree);
    num_logits_ += drawn;
  }

  SampleRow row(const AcceptSequence& s, int node) const {
    SampleRow draw = s.draw;
    draw.row = s.first_logits_row + node - (s.num_rows - s.num_logits_rows);
    draw.position = batch_.positions[s.first_row + node] + 1;
    return draw;
  }
  int32_t draw(const AcceptSequence& s, int node) {
    SampleRow asked = row(s, node);
    if (s.typical) asked.temperature = 0;
    int32_t id = -1;
    ops::sample(backend_, {&id, 1}, *logits_, {&asked, 1});
    return id;
  }

  int exact_end(size_t i) {
    const Tree& tree = trees_[i];
    for (int node = 0;;) {
      const int32_t drawn = draw(sequences_[i], node);
      int child = tree.first_child(node);
      const int end = child + tree.num_children(node);
      while (child < end && batch_.tokens[sequences_[i].first_row + child] != drawn) ++child;
      if (child == end) return node;
      node = child;
    }
  }

  int judged_end(size_t i) {
    const Tree& tree = trees_[i];
    std::vector<float> log_probs(tree.size()), entropies(tree.size()), scores(tree.size());
    for (int node = 0; node < tree.size(); ++node) {
      const auto first = static_cast<size_t>(tree.first_child(node));
      const auto count = static_cast<size_t>(tree.num_children(node));
      if (count == 0) continue;
      const PosteriorRow asked{
          .draw = row(sequences_[i], node),
          .tokens = std::span(batch_.tokens).subspan(sequences_[i].first_row + first, count),
          .log_probs = std::span(log_probs).subspan(first, count),
          .entropy = &entropies[node]};
      ops::posterior(backend_, *logits_, {&asked, 1});
    }
    return typical_path_end(kAcceptRule, {tree.parents(), tree.depths(), log_probs, entropies},
                            scores);
  }

  Backend& backend_;
  std::mt19937 random_;
  RowBatch batch_;
  std::vector<Tree> trees_;
  std::vector<AcceptSequence> sequences_;
  int64_t num_logits_ = 0;
  Layer lm_head_;
  std::optional<Resident> x_, room_, logits_;
};

/// Steps of `steps` seeds are decided as defined. More than ten trees must be entered below their
/// roots, or nothing was shown.
inline void expect_defined_decisions(Backend& backend, const std::vector<Asked>& asked,
                                     unsigned steps) {
  int entered = 0;
  for (unsigned seed = 1; seed <= steps; ++seed) {
    AcceptStep step(backend, asked, seed);
    const Decided found = step.decide();
    EXPECT_EQ(found, step.expected()) << seed;
    for (size_t i = 0; i < found.last.size(); ++i) {
      const AcceptSequence& s = step.sequences()[i];
      if (s.tree && found.last[i] > s.first_row) ++entered;
    }
  }
  EXPECT_GT(entered, 10);
}

}  // namespace medusa
