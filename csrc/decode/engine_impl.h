#pragma once

#include <map>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "decode/accept.h"
#include "decode/logprobs.h"
#include "decode/scheduler.h"
#include "decode/step_plan.h"
#include "medusa/engine.h"
#include "model/model_impl.h"

namespace medusa {

/// Owns what one engine needs beside the model; nothing here grows inside a step.
struct Engine::Impl {
  Impl(const Model& the_model, std::optional<Heads> the_heads, Tree the_tree,
       const EngineOptions& asked);

  void reserve();
  void run_step();
  void append_accepted();
  void run_heads();
  void finish_step();
  std::unique_ptr<Sequence> make_sequence(std::span<const int32_t> prompt,
                                          const SamplingParams& params) const;
  Sequence* find(int64_t request_id) const;
  bool drafts(const SamplingParams& params) const { return params.speculative && tree.size() > 1; }
  bool accepts_typically(const SamplingParams& params) const {
    return drafts(params) && options.acceptance_method == AcceptanceMethod::typical;
  }

  Backend& backend() { return *model.impl()->backend; }
  const Llama& llama() { return model.impl()->llama; }
  int top_k() const { return tree.max_rank() + 1; }
  DType cache_dtype() { return KvCache::dtype_of(backend(), options.kv_cache_dtype); }

  Model model;
  std::optional<Heads> heads;
  Tree tree;  // the largest: buffers and guesses are laid out for it
  EngineOptions options;
  RopeTable rope;
  Workspace workspace;
  KvCache cache;
  std::optional<HeadsWorkspace> heads_workspace;
  Scheduler scheduler;
  std::unique_ptr<Acceptance> acceptance;
  LogprobRecorder logprobs;

  StepPlan plan;
  RowBatch batch;
  std::vector<int32_t> logits_rows;
  std::vector<int32_t> head_rows;
  std::vector<int32_t> head_roots;
  std::vector<PlanEntry*> guessed;
  std::vector<StepOutput> outputs;

  std::map<int64_t, std::unique_ptr<Sequence>> sequences;
  int64_t next_id = 0;
  Metrics totals;  // but for the cache's use by requests not yet forgotten
};

}  // namespace medusa
