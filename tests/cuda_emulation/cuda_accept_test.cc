// Acceptance on the device against its definition: what sample() and posterior() say at each node,
// and the rules of decode/accept.h and backend/typical_rule.h.
#include <algorithm>
#include <optional>
#include <random>

#include "device_case.h"
#include "linear_case.h"
#include "medusa/error.h"
#include "medusa/tree.h"

namespace medusa {
namespace {

constexpr int64_t kVocab = 9;  // so few that drafted tokens are often drawn
constexpr int64_t kHidden = 32;
constexpr TypicalRule kRule{-1.6f, -0.7f};

struct Asked {
  Tree tree = Tree::root_only();
  int prompt = 0;  // > 0: a chunk of so many rows instead
  bool draws = true, typical = false;
  float temperature = 0;
};

struct Decided {
  std::vector<int32_t> kept, last, roots;
  bool operator==(const Decided&) const = default;
};

// A batch, the product that makes its logits, and what acceptance is told.
class Step {
 public:
  Step(Backend& backend, const std::vector<Asked>& asked, unsigned seed)
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
    EXPECT_TRUE(
        ops::accept(backend_, {kept, last, roots}, product(wanted), batch_, sequences_, kRule));
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
    return typical_path_end(kRule, {tree.parents(), tree.depths(), log_probs, entropies}, scores);
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

class CudaAcceptTest : public DeviceTest {};
MEDUSA_FOR_EVERY_DEVICE_CASE(CudaAcceptTest);

std::vector<Asked> everyone() {
  const Tree wide = Tree::stock("mc_sim_7b_63"), chain = Tree::chain(4);
  return {{.prompt = 40, .draws = false},
          {.tree = wide},
          {.tree = wide, .temperature = 1.2f},
          {.tree = chain, .temperature = 0.7f},
          {.prompt = 33, .temperature = 0.7f},
          {.tree = wide, .typical = true, .temperature = 0.9f},
          {.tree = chain, .typical = true, .temperature = 0},
          {.tree = Tree::root_only(), .temperature = 0.9f},
          {.tree = Tree::root_only(), .typical = true, .temperature = 0.9f},
          {.prompt = 1, .typical = true, .temperature = 0.9f}};
}

TEST_P(CudaAcceptTest, decides_what_the_rules_say) {
  int long_paths = 0;
  for (unsigned seed = 1; seed < 7; ++seed) {
    Step step(*backend, everyone(), seed);
    const Decided found = step.decide();
    EXPECT_EQ(found, step.expected()) << seed;
    for (size_t i = 0; i < found.last.size(); ++i) {
      const AcceptSequence& s = step.sequences()[i];
      if (s.tree) long_paths += found.last[i] > s.first_row ? 1 : 0;
    }
  }
  EXPECT_GT(long_paths, 10);  // or nothing was shown
}

// Only who wants the logits gets them, with the bits of a product that stores them.
TEST_P(CudaAcceptTest, writes_logits_where_they_are_wanted) {
  Step step(*backend, everyone(), 9);
  const Matrix untouched = step.room().fetch();
  const Decided without = step.decide();
  EXPECT_TRUE(step.room().fetch().same(untouched));
  EXPECT_EQ(step.decide(true), without);
  EXPECT_TRUE(step.room().fetch().same(step.logits().fetch()));
}

TEST_P(CudaAcceptTest, works_without_drafts_and_without_logits) {
  Step root(*backend, {{.typical = true, .temperature = 1}}, 2);
  EXPECT_EQ(root.decide(), root.expected());
  Step step(*backend, {{.prompt = 5, .draws = false}}, 3);
  EXPECT_EQ(step.decide().kept, (std::vector<int32_t>{1, 1, 1, 1, 1}));
}

TEST_P(CudaAcceptTest, leaves_to_the_host_what_needs_the_host) {
  Step step(*backend, {{}, {.tree = Tree::chain(2), .temperature = 1}}, 4);
  const Resident out(*backend, Matrix(DType::i32, 1, 4)), two(*backend, Matrix(DType::i32, 1, 2));
  const auto answer = [&] {
    return ops::accept(*backend, {out, two, two}, step.product(), step.batch(), step.sequences(),
                       kRule);
  };
  EXPECT_TRUE(answer());
  step.sequences()[1].draw.top_k = 3;
  EXPECT_FALSE(answer());
  step.sequences()[1].draw.top_k = 0;
  const std::vector<int32_t> banned = {1};
  step.sequences()[0].draw.rules.banned = banned;
  EXPECT_FALSE(answer());
}

TEST_P(CudaAcceptTest, refuses_rows_outside_of_the_batch) {
  Step step(*backend, {{.tree = Tree::chain(3)}}, 5);
  step.sequences()[0].num_rows = 5;
  EXPECT_THROW(step.decide(), InvalidArgument);
}

}  // namespace
}  // namespace medusa
