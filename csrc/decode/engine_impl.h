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
#include "decode/step_results.h"
#include "decode/steps_ahead.h"
#include "medusa/engine.h"
#include "model/model_impl.h"

namespace medusa {

/// Owns what one engine needs beside the model; nothing here grows inside a step.
struct Engine::Impl {
  Impl(const Model& the_model, std::optional<Heads> the_heads, Tree the_tree,
       const EngineOptions& asked);
  ~Impl();

  void reserve();
  void run_step();
  void plan_heads();
  void compute();
  bool decide();
  void offer_rows();
  void run_heads();
  void offer_next_steps();
  void rest();
  void advance_cache();
  void finish_step();
  void take_guesses();
  void add_device_times(StepTimes& times) const;
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
  StepResults results;
  Scheduler scheduler;
  std::unique_ptr<Acceptance> acceptance;
  LogprobRecorder logprobs;
  StepsAhead ahead;

  StepPlan plan;
  RowBatch batch;
  std::vector<int32_t> logits_rows;
  std::vector<PlanEntry*> guessed;  // who gets guesses; first among the decisions
  int num_heads = 0;                // that give them
  std::vector<StepOutput> outputs;

  std::map<int64_t, std::unique_ptr<Sequence>> sequences;
  int64_t next_id = 0;
  Metrics totals;  // but for the cache's use by requests not yet forgotten
};

}  // namespace medusa
