#include "decode/tree_policy.h"

#include <algorithm>

namespace medusa {
namespace {

// Drafts over which what was seen of a node outweighs what was measured before, and over which it
// fades; the same for a sequence, in accepted drafts and in steps.
constexpr double kPriorWeight = 16, kNodeMemory = 0.995;
constexpr double kSequenceWeight = 4, kSequenceMemory = 0.97;
constexpr double kHeadsMemory = 0.8;
// Plain steps between two tries whether drafts pay again.
constexpr int kProbeInterval = 64, kMaxProbeInterval = 1024;

// Where nothing was measured: half of the best guesses are right, the second best half as often.
double assumed_probability(const Tree& tree, int node) {
  double probability = 1;
  for (int n = node; n > 0; n = tree.parents()[n]) probability *= 0.5 / (1 + tree.ranks()[n]);
  return probability;
}

std::vector<double> prior_of(const Tree& tree, const std::vector<float>& measured) {
  std::vector<double> prior(measured.begin(), measured.end());
  for (int node = static_cast<int>(prior.size()); node < tree.size(); ++node) {
    prior.push_back(assumed_probability(tree, node));
  }
  return prior;
}

// More rows never cost less: where a measurement says so, the larger one errs.
std::vector<double> without_dips(const std::vector<float>& measured) {
  std::vector<double> seconds(measured.begin(), measured.end());
  for (size_t i = seconds.size(); i-- > 1;) seconds[i - 1] = std::min(seconds[i - 1], seconds[i]);
  return seconds;
}

}  // namespace

TreePolicy::TreePolicy(const EngineOptions& options, const Tree& tree)
    : adaptive_(options.adaptive),
      ladder_(tree, options.path_probability, options.adaptive),
      step_seconds_(without_dips(options.step_seconds)),
      prior_(prior_of(tree, options.path_probability)),
      offered_(tree.size(), 0),
      accepted_(tree.size(), 0),
      gain_(ladder_.num_rungs(), 0),
      probe_interval_(kProbeInterval) {
  heap_.reserve(options.max_num_seqs);
  moves_.reserve(static_cast<size_t>(options.max_num_seqs) * ladder_.num_rungs());
}

// Beyond the table: along the line through its last half.
double TreePolicy::step_seconds(int rows) const {
  const auto size = static_cast<int>(step_seconds_.size());
  if (rows <= size) return step_seconds_[std::max(rows, 1) - 1];
  if (size == 1) return step_seconds_[0] * rows;
  const int middle = size / 2;
  const double slope = (step_seconds_[size - 1] - step_seconds_[middle - 1]) / (size - middle);
  return step_seconds_[size - 1] + slope * (rows - size);
}

void TreePolicy::update_gains() {
  for (int rung = 1; rung < ladder_.num_rungs(); ++rung) {
    gain_[rung] = 0;
    for (const int node : ladder_.nodes(rung).subspan(1)) {
      gain_[rung] +=
          (kPriorWeight * prior_[node] + accepted_[node]) / (kPriorWeight + offered_[node]);
    }
  }
}

double TreePolicy::expected(const Sequence& sequence, int rung) const {
  const SeenAcceptance& seen = sequence.seen;
  return gain_[rung] * (kSequenceWeight + seen.accepted) / (kSequenceWeight + seen.expected);
}

void TreePolicy::push_move(const Sequence& sequence, int index, int heads) {
  const int next = sequence.rung + 1;
  if (next == ladder_.num_rungs() || ladder_.tree(next).depth() > heads) return;
  const int rows = ladder_.tree(next).size() - ladder_.tree(sequence.rung).size();
  const double gain = expected(sequence, next) - expected(sequence, sequence.rung);
  heap_.push_back({gain / rows, index});
  std::push_heap(heap_.begin(), heap_.end());
}

// Step by step whoever gains most by a row goes one rung up; the best point of that way is kept.
void TreePolicy::climb(std::span<Sequence* const> drafting, const StepLoad& load,
                       bool heads_are_due) {
  const auto reach = [&](const Sequence& sequence) {
    return heads_are_due ? ladder_.tree(ladder_.num_rungs() - 1).depth() : sequence.num_guesses;
  };
  heap_.clear();
  moves_.clear();
  update_gains();
  int rows = load.decoding, depth = 0;
  double tokens = load.decoding;
  double best_rate = tokens / step_seconds(rows + load.prompt_rows);
  size_t best_moves = 0;
  for (size_t i = 0; i < drafting.size(); ++i) {
    drafting[i]->rung = 0;
    push_move(*drafting[i], static_cast<int>(i), reach(*drafting[i]));
  }
  while (!heap_.empty()) {
    std::pop_heap(heap_.begin(), heap_.end());
    const int index = heap_.back().index;
    heap_.pop_back();
    Sequence& sequence = *drafting[index];
    const Tree &from = ladder_.tree(sequence.rung), &to = ladder_.tree(sequence.rung + 1);
    if (rows + to.size() - from.size() > load.max_rows) continue;
    rows += to.size() - from.size();
    tokens += expected(sequence, sequence.rung + 1) - expected(sequence, sequence.rung);
    depth = std::max(depth, to.depth());
    ++sequence.rung;
    moves_.push_back(index);
    push_move(sequence, index, reach(sequence));
    const double heads = heads_are_due ? depth * seconds_per_head_ : 0;
    const double rate = tokens / (step_seconds(rows + load.prompt_rows) + heads);
    if (rate <= best_rate) continue;
    best_rate = rate;
    best_moves = moves_.size();
  }
  for (Sequence* sequence : drafting) sequence->rung = 0;
  for (size_t i = 0; i < best_moves; ++i) ++drafting[moves_[i]]->rung;
}

void TreePolicy::choose(std::span<Sequence* const> drafting, const StepLoad& load) {
  if (drafting.empty()) return;
  const int last = ladder_.num_rungs() - 1;
  if (!adaptive_) {
    for (Sequence* sequence : drafting) sequence->rung = last;
    return;
  }
  climb(drafting, load, false);
  if (!probing_) return;
  int rows = load.decoding;
  for (Sequence* sequence : drafting) {
    if (sequence->rung == 0 && ++rows <= load.max_rows) sequence->rung = 1;
  }
  probing_ = false;
}

int TreePolicy::deepest(std::span<Sequence* const> drafting) const {
  int depth = 0;
  for (const Sequence* sequence : drafting) {
    depth = std::max(depth, ladder_.tree(sequence->rung).depth());
  }
  return depth;
}

int TreePolicy::choose_heads(std::span<Sequence* const> drafting, const StepLoad& load) {
  if (drafting.empty()) return 0;
  if (!adaptive_) {
    for (Sequence* sequence : drafting) sequence->rung = ladder_.num_rungs() - 1;
    return deepest(drafting);
  }
  climb(drafting, load, true);
  const int depth = deepest(drafting);
  if (depth > 0) {
    plain_steps_ = 0;
    probe_interval_ = kProbeInterval;
  } else if (is_time_to_probe()) {
    for (Sequence* sequence : drafting) sequence->rung = 1;
    probing_ = true;
    return ladder_.tree(1).depth();
  }
  return depth;
}

// Fewer and fewer as long as nothing comes of it.
bool TreePolicy::is_time_to_probe() {
  if (++plain_steps_ < probe_interval_) return false;
  plain_steps_ = 0;
  probe_interval_ = std::min(2 * probe_interval_, kMaxProbeInterval);
  return true;
}

void TreePolicy::observe(const PlanEntry& entry) {
  if (!adaptive_ || entry.is_prefill() || entry.tree->size() == 1) return;
  const int rung = ladder_.rung_of(*entry.tree);
  SeenAcceptance& seen = entry.sequence->seen;
  seen.expected = kSequenceMemory * seen.expected + gain_[rung];
  seen.accepted = kSequenceMemory * seen.accepted + (entry.accepted_rows.size() - 1.0);
  const std::span<const int> nodes = ladder_.nodes(rung);
  for (const int node : nodes) {
    offered_[node] = kNodeMemory * offered_[node] + 1;
    accepted_[node] *= kNodeMemory;
  }
  for (const int32_t row : entry.accepted_rows) accepted_[nodes[row - entry.first_row]] += 1;
}

void TreePolicy::observe_heads(int num_heads, double seconds) {
  const double sample = seconds / num_heads;
  seconds_per_head_ = seconds_per_head_ == 0
                          ? sample
                          : kHeadsMemory * seconds_per_head_ + (1 - kHeadsMemory) * sample;
}

}  // namespace medusa
