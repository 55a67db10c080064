#include "decode/typical.h"

#include <cmath>
#include <span>
#include <utility>

#include "backend/ops.h"
#include "base/check.h"
#include "decode/sampler.h"

namespace medusa {
namespace {

// Below 1 either bound keeps every likeliest token; above 0 it keeps no other at temperature 0.
float log_of(const char* name, float value) {
  check(value > 0 && value < 1, name, ": expected above 0 and below 1, found ", value);
  return static_cast<float>(std::log(static_cast<double>(value)));
}

std::span<float> nodes_of(std::vector<float>& values, const PlanEntry& entry) {
  return std::span(values).subspan(static_cast<size_t>(entry.first_logits_row),
                                   static_cast<size_t>(entry.tree->size()));
}

}  // namespace

TypicalAcceptance::TypicalAcceptance(const EngineOptions& options, int max_depth,
                                     int max_logits_rows)
    : Acceptance(options.max_num_seqs, {log_of("posterior_threshold", options.posterior_threshold),
                                        log_of("posterior_alpha", options.posterior_alpha)}),
      max_depth_(max_depth),
      log_probs_(max_logits_rows),
      entropies_(max_logits_rows),
      scores_(max_logits_rows),
      paths_(static_cast<size_t>(max_logits_rows) * max_depth) {
  level_.reserve(max_logits_rows);
  next_level_.reserve(max_logits_rows);
  rows_.reserve(max_logits_rows);
  root_rows_.reserve(options.max_num_seqs);
  roots_.reserve(options.max_num_seqs);
}

void TypicalAcceptance::walk(Backend& backend, StepPlan& plan, const RowBatch& batch,
                             Tensor logits) {
  start(plan);
  while (!level_.empty()) {
    judge(backend, batch, logits);
    descend();
  }
  for (PlanEntry& entry : plan) {
    if (!entry.is_prefill()) keep_path(entry, batch);
  }
  draw_roots(backend, plan, logits);
}

void TypicalAcceptance::start(StepPlan& plan) {
  next_level_.clear();
  for (PlanEntry& entry : plan) {
    if (entry.is_prefill()) {
      entry.accept_first(entry.num_rows);
    } else {
      reach(entry, 0);
    }
  }
  std::swap(level_, next_level_);
}

void TypicalAcceptance::reach(PlanEntry& entry, int node) {
  if (entry.tree->num_children(node) > 0) next_level_.push_back({&entry, node});
}

// Tokens from below the root to a node, which stay until the next step.
std::span<const int32_t> TypicalAcceptance::path_to(const Node& to, const RowBatch& batch) {
  const Tree& tree = *to.entry->tree;
  const auto row = static_cast<size_t>(to.entry->first_logits_row + to.node);
  const auto depth = static_cast<size_t>(tree.depths()[to.node]);
  const std::span path = std::span(paths_).subspan(row * max_depth_, depth);
  for (int node = to.node; node > 0; node = tree.parents()[node]) {
    path[tree.depths()[node] - 1] = batch.tokens[to.entry->first_row + node];
  }
  return path;
}

// Fills the entropies of a level's nodes and the log-probabilities of their children.
void TypicalAcceptance::judge(Backend& backend, const RowBatch& batch, Tensor logits) {
  rows_.clear();
  for (const auto [entry, node] : level_) {
    const Tree& tree = *entry->tree;
    const auto first = static_cast<size_t>(tree.first_child(node));
    const auto count = static_cast<size_t>(tree.num_children(node));
    const std::span tokens(batch.tokens);
    const int position = entry->committed + tree.depths()[node] + 1;
    rows_.push_back({.draw = sample_row(*entry->sequence, entry->first_logits_row + node, position,
                                        path_to({entry, node}, batch)),
                     .tokens = tokens.subspan(entry->first_row + first, count),
                     .log_probs = nodes_of(log_probs_, *entry).subspan(first, count),
                     .entropy = &nodes_of(entropies_, *entry)[node]});
  }
  ops::posterior(backend, logits, rows_);
}

void TypicalAcceptance::descend() {
  next_level_.clear();
  for (const auto [entry, node] : level_) {
    const std::span log_probs = nodes_of(log_probs_, *entry);
    const float entropy = nodes_of(entropies_, *entry)[node];
    const int first = entry->tree->first_child(node);
    for (int child = first; child < first + entry->tree->num_children(node); ++child) {
      if (rule_.accepts(log_probs[child], entropy)) reach(*entry, child);
    }
  }
  std::swap(level_, next_level_);
}

void TypicalAcceptance::keep_path(PlanEntry& entry, const RowBatch& batch) {
  const Tree& tree = *entry.tree;
  const JudgedTree judged{tree.parents(), tree.depths(), nodes_of(log_probs_, entry),
                          nodes_of(entropies_, entry)};
  int node = typical_path_end(rule_, judged, nodes_of(scores_, entry));
  entry.accepted_rows.resize(tree.depths()[node] + 1);
  const std::span path = path_to({&entry, node}, batch);
  entry.path.assign(path.begin(), path.end());
  for (; node >= 0; node = tree.parents()[node]) {
    entry.accepted_rows[tree.depths()[node]] = entry.first_row + node;
  }
}

void TypicalAcceptance::draw_roots(Backend& backend, StepPlan& plan, Tensor logits) {
  root_rows_.clear();
  for (const PlanEntry& entry : plan) {
    if (entry.num_logits_rows == 0) continue;
    const int position = entry.committed + static_cast<int>(entry.accepted_rows.size());
    SampleRow row = sample_row(*entry.sequence, entry.logits_row(entry.accepted_rows.back()),
                               position, entry.path);
    if (entry.sequence->drafts) row.temperature = 0;
    root_rows_.push_back(row);
  }
  roots_.resize(root_rows_.size());
  ops::sample(backend, roots_, logits, root_rows_);
  auto root = roots_.begin();
  for (PlanEntry& entry : plan) {
    if (entry.num_logits_rows > 0) entry.next_root = *root++;
  }
}

void check_typical(const SamplingParams& params) {
  const auto refuse = [](const char* name, bool given) {
    check(!given, name,
          ": has no effect with acceptance_method \"typical\", which draws nothing at random");
  };
  refuse("top_p", params.top_p < 1);
  refuse("top_k", params.top_k > 0);
  refuse("min_p", params.min_p > 0);
}

}  // namespace medusa
