#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "medusa/config.h"
#include "medusa/model.h"
#include "medusa/sampling.h"
#include "medusa/tree.h"

namespace medusa {

enum class FinishReason : uint8_t { none, stop, length, abort };

/// Log probabilities, `width` entries a token: its own, then those of the likeliest ids, best
/// first.
struct LogprobTable {
  std::span<const TokenLogprob> entries;  // (tokens, width)
  size_t width = 0;                       // 0: the request did not ask for any
};

/// What one step added to one request. The view lives until the next call of step().
struct StepOutput {
  int64_t request_id = 0;
  std::span<const int32_t> tokens;  // accepted in this step; a stop token is the last one
  FinishReason finish_reason = FinishReason::none;
  int32_t stop_token = -1;       // the stop token met, or -1
  LogprobTable logprobs;         // of `tokens`
  LogprobTable prompt_logprobs;  // of the prompt but its first token, with the answer's first
};

/// Seconds of forward passes, by what they were spent on.
struct StepTimes {
  double draft = 0;    // laying out rows and handing them over
  double forward = 0;  // the backbone, logits included
  double accept = 0;
  double commit = 0;  // appending to the cache, recording
  double heads = 0;
};

/// Counters of one request, or of all. A draft is one tree offered to the backbone.
struct Metrics {
  int64_t num_requests = 0;  // submitted
  int64_t num_prompt_tokens = 0;
  int64_t num_cached_tokens = 0;  // positions taken from the prefix cache, not computed
  int64_t num_preemptions = 0;    // times its pages were given to others
  int64_t num_generated_tokens = 0;
  int64_t num_forward_passes = 0;              // taken part in, prefill included
  int64_t num_steps = 0;                       // decode steps of a sequence, prefill excluded
  int64_t num_drafts = 0;                      // steps whose tree had more than its root
  int64_t num_draft_tokens = 0;                // tree nodes offered, roots excluded
  int64_t num_accepted_tokens = 0;             // of those, accepted
  std::vector<int64_t> accepted_per_position;  // [depth - 1]
  std::vector<int64_t> rank_histogram;         // (depths, ranks) accepted guesses of head depth - 1
  StepTimes step_times;                        // of the passes taken part in, whoever else did
  double time_to_first_token = 0;              // seconds from submit
  double decode_time = 0;                      // seconds from first token to last
};

/// Decodes any number of requests on one model, several at a time. Not thread-safe: one caller at
/// a time; cancel() takes effect at the next step.
class Engine {
 public:
  /// `tree` needs `heads`; without them every request decodes plainly (a tree of one node).
  /// Throws InvalidArgument when the tree is deeper than there are heads or a rank exceeds the
  /// draft vocabulary, OutOfMemory when the limits leave no room for one sequence.
  Engine(const Model& model, std::optional<Heads> heads, Tree tree, const EngineOptions& options);
  ~Engine();
  Engine(Engine&&) noexcept;

  /// Queues a request. Throws InvalidArgument for an empty prompt, tokens out of range, or a prompt
  /// that leaves no room within max_model_len.
  int64_t submit(std::span<const int32_t> prompt, const SamplingParams& params);
  /// One forward pass for everything that is running. Empty when nothing is left to do.
  std::span<const StepOutput> step();
  /// Stops a request; its pages are free at once. No effect on finished or unknown ones.
  void cancel(int64_t request_id);
  bool has_unfinished() const;

  /// The tree of coming steps, for a caller that sets its size step by step; trees were made with
  /// the guesses of the step before, so the first step with a deeper one is worth little. Throws
  /// InvalidArgument when it is larger, deeper or wider than the engine's first tree, or the engine
  /// is adaptive.
  void set_tree(Tree tree);

  /// Of a request that runs or has finished and was not yet forgotten.
  Metrics metrics(int64_t request_id) const;
  /// Sums over all requests so far, forgotten ones too. A pass that several share counts once;
  /// times to first token and decode times are left out.
  Metrics metrics() const;
  /// Drops a finished request's counters.
  void forget(int64_t request_id);

  int num_pages() const;                 // of the cache
  int num_free_pages() const;            // those that no running request uses
  const EngineOptions& options() const;  // with every zero resolved
  size_t kv_cache_bytes() const;
  size_t workspace_bytes() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace medusa
