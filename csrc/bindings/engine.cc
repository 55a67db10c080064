#include "medusa/engine.h"

#include <pybind11/stl.h>

#include <tuple>

#include "base/check.h"
#include "bindings/bindings.h"
#include "decode/sampler.h"
#include "medusa/device.h"
#include "medusa/sampling.h"

namespace py = pybind11;
using namespace py::literals;

namespace medusa {
namespace {

/// (id, logprob, rank).
using LogprobTuple = std::tuple<int32_t, float, int32_t>;

/// A StepOutput that owns what it shows. Logprobs: one row a token, its own entry first.
struct OwnedOutput {
  int64_t request_id;
  std::vector<int32_t> tokens;
  const char* finish_reason;
  int32_t stop_token;
  std::vector<std::vector<LogprobTuple>> logprobs;
  std::vector<std::vector<LogprobTuple>> prompt_logprobs;
};

std::vector<std::vector<LogprobTuple>> owned_rows(const LogprobTable& table) {
  std::vector<std::vector<LogprobTuple>> rows(
      table.width == 0 ? 0 : table.entries.size() / table.width);
  for (size_t i = 0; i < rows.size(); ++i) {
    for (const TokenLogprob& entry : table.entries.subspan(i * table.width, table.width)) {
      rows[i].emplace_back(entry.id, entry.logprob, entry.rank);
    }
  }
  return rows;
}

const char* reason_name(FinishReason reason) {
  switch (reason) {
    case FinishReason::stop:
      return "stop";
    case FinishReason::length:
      return "length";
    case FinishReason::abort:
      return "abort";
    case FinishReason::none:
      break;
  }
  return "none";
}

std::vector<OwnedOutput> step(Engine& engine) {
  const py::gil_scoped_release release;
  std::vector<OwnedOutput> owned;
  for (const StepOutput& output : engine.step()) {
    owned.push_back({output.request_id,
                     {output.tokens.begin(), output.tokens.end()},
                     reason_name(output.finish_reason),
                     output.stop_token,
                     owned_rows(output.logprobs),
                     owned_rows(output.prompt_logprobs)});
  }
  return owned;
}

AcceptanceMethod parse_acceptance(const std::string& name) {
  if (name == "exact") return AcceptanceMethod::exact;
  if (name == "typical") return AcceptanceMethod::typical;
  throw InvalidArgument(text("acceptance_method: expected exact or typical, found ", name));
}

KvCacheType parse_cache(const std::string& name) {
  if (name == "auto") return KvCacheType::compute;
  if (name == "int8") return KvCacheType::int8;
  throw InvalidArgument(text("kv_cache_dtype: expected auto or int8, found ", name));
}

const char* acceptance_name(AcceptanceMethod method) {
  return method == AcceptanceMethod::typical ? "typical" : "exact";
}

Engine make_engine(const Model& model, const std::optional<Heads>& heads, const Tree& tree,
                   int max_num_seqs, int max_num_batched_tokens, int max_model_len,
                   size_t kv_cache_memory, const std::string& kv_cache_dtype,
                   bool enable_prefix_caching, bool adaptive, std::vector<float> step_seconds,
                   std::vector<float> path_probability, float synthetic_acceptance_length,
                   const std::string& acceptance_method, float posterior_threshold,
                   float posterior_alpha) {
  const EngineOptions options{.max_num_seqs = max_num_seqs,
                              .max_num_batched_tokens = max_num_batched_tokens,
                              .max_model_len = max_model_len,
                              .kv_cache_memory = kv_cache_memory,
                              .kv_cache_dtype = parse_cache(kv_cache_dtype),
                              .enable_prefix_caching = enable_prefix_caching,
                              .adaptive = adaptive,
                              .step_seconds = std::move(step_seconds),
                              .path_probability = std::move(path_probability),
                              .synthetic_acceptance_length = synthetic_acceptance_length,
                              .acceptance_method = parse_acceptance(acceptance_method),
                              .posterior_threshold = posterior_threshold,
                              .posterior_alpha = posterior_alpha};
  const py::gil_scoped_release release;
  return Engine(model, heads, tree, options);
}

void register_sampling(py::module_& module) {
  const SamplingParams d{};
  py::class_<SamplingParams>(module, "SamplingParams", "How one request is decoded.")
      .def(py::init([](int max_tokens, float temperature, float top_p, int top_k, float min_p,
                       uint64_t seed, std::vector<int32_t> stop_token_ids, int min_tokens,
                       bool speculative, float repetition_penalty, float presence_penalty,
                       float frequency_penalty, std::vector<std::pair<int32_t, float>> logit_bias,
                       std::vector<int32_t> allowed_token_ids,
                       std::vector<std::vector<int32_t>> bad_words, int logprobs,
                       int prompt_logprobs) {
             return SamplingParams{max_tokens,
                                   temperature,
                                   top_p,
                                   top_k,
                                   min_p,
                                   seed,
                                   std::move(stop_token_ids),
                                   min_tokens,
                                   speculative,
                                   repetition_penalty,
                                   presence_penalty,
                                   frequency_penalty,
                                   std::move(logit_bias),
                                   std::move(allowed_token_ids),
                                   std::move(bad_words),
                                   logprobs,
                                   prompt_logprobs};
           }),
           "max_tokens"_a = d.max_tokens, "temperature"_a = d.temperature, "top_p"_a = d.top_p,
           "top_k"_a = d.top_k, "min_p"_a = d.min_p, "seed"_a = d.seed,
           "stop_token_ids"_a = d.stop_token_ids, "min_tokens"_a = d.min_tokens,
           "speculative"_a = d.speculative, "repetition_penalty"_a = d.repetition_penalty,
           "presence_penalty"_a = d.presence_penalty, "frequency_penalty"_a = d.frequency_penalty,
           "logit_bias"_a = d.logit_bias, "allowed_token_ids"_a = d.allowed_token_ids,
           "bad_words"_a = d.bad_words, "logprobs"_a = d.logprobs,
           "prompt_logprobs"_a = d.prompt_logprobs)
      .def_readonly("max_tokens", &SamplingParams::max_tokens)
      .def_readonly("temperature", &SamplingParams::temperature)
      .def_readonly("top_p", &SamplingParams::top_p)
      .def_readonly("top_k", &SamplingParams::top_k)
      .def_readonly("min_p", &SamplingParams::min_p)
      .def_readonly("seed", &SamplingParams::seed)
      .def_readonly("stop_token_ids", &SamplingParams::stop_token_ids)
      .def_readonly("min_tokens", &SamplingParams::min_tokens)
      .def_readonly("speculative", &SamplingParams::speculative)
      .def_readonly("repetition_penalty", &SamplingParams::repetition_penalty)
      .def_readonly("presence_penalty", &SamplingParams::presence_penalty)
      .def_readonly("frequency_penalty", &SamplingParams::frequency_penalty)
      .def_readonly("logit_bias", &SamplingParams::logit_bias)
      .def_readonly("allowed_token_ids", &SamplingParams::allowed_token_ids)
      .def_readonly("bad_words", &SamplingParams::bad_words)
      .def_readonly("logprobs", &SamplingParams::logprobs)
      .def_readonly("prompt_logprobs", &SamplingParams::prompt_logprobs)
      .def("check", &check_sampling, "vocab_size"_a);
}

void register_values(py::module_& module) {
  py::class_<OwnedOutput>(module, "StepOutput", "What one step added to one request.")
      .def_readonly("request_id", &OwnedOutput::request_id)
      .def_readonly("tokens", &OwnedOutput::tokens)
      .def_readonly("finish_reason", &OwnedOutput::finish_reason)
      .def_readonly("stop_token", &OwnedOutput::stop_token)
      .def_readonly("logprobs", &OwnedOutput::logprobs)
      .def_readonly("prompt_logprobs", &OwnedOutput::prompt_logprobs);
  py::class_<EngineOptions>(module, "EngineOptions", "Options of an Engine, all resolved.")
      .def_readonly("max_num_seqs", &EngineOptions::max_num_seqs)
      .def_readonly("max_num_batched_tokens", &EngineOptions::max_num_batched_tokens)
      .def_readonly("max_model_len", &EngineOptions::max_model_len)
      .def_readonly("kv_cache_memory", &EngineOptions::kv_cache_memory)
      .def_property_readonly("kv_cache_dtype",
                             [](const EngineOptions& options) {
                               return options.kv_cache_dtype == KvCacheType::int8 ? "int8" : "auto";
                             })
      .def_readonly("enable_prefix_caching", &EngineOptions::enable_prefix_caching)
      .def_readonly("adaptive", &EngineOptions::adaptive)
      .def_readonly("step_seconds", &EngineOptions::step_seconds)
      .def_readonly("path_probability", &EngineOptions::path_probability)
      .def_readonly("synthetic_acceptance_length", &EngineOptions::synthetic_acceptance_length)
      .def_property_readonly(
          "acceptance_method",
          [](const EngineOptions& options) { return acceptance_name(options.acceptance_method); })
      .def_readonly("posterior_threshold", &EngineOptions::posterior_threshold)
      .def_readonly("posterior_alpha", &EngineOptions::posterior_alpha);
  py::class_<StepTimes>(module, "StepTimes", "Seconds of forward passes.")
      .def_readonly("draft", &StepTimes::draft)
      .def_readonly("forward", &StepTimes::forward)
      .def_readonly("accept", &StepTimes::accept)
      .def_readonly("commit", &StepTimes::commit)
      .def_readonly("heads", &StepTimes::heads);
  py::class_<Metrics>(module, "Metrics", "Counters of one request, or of all.")
      .def_readonly("num_requests", &Metrics::num_requests)
      .def_readonly("num_forward_passes", &Metrics::num_forward_passes)
      .def_readonly("rank_histogram", &Metrics::rank_histogram)
      .def_readonly("step_times", &Metrics::step_times)
      .def_readonly("num_prompt_tokens", &Metrics::num_prompt_tokens)
      .def_readonly("num_cached_tokens", &Metrics::num_cached_tokens)
      .def_readonly("num_preemptions", &Metrics::num_preemptions)
      .def_readonly("num_generated_tokens", &Metrics::num_generated_tokens)
      .def_readonly("num_steps", &Metrics::num_steps)
      .def_readonly("num_drafts", &Metrics::num_drafts)
      .def_readonly("num_draft_tokens", &Metrics::num_draft_tokens)
      .def_readonly("num_accepted_tokens", &Metrics::num_accepted_tokens)
      .def_readonly("accepted_per_position", &Metrics::accepted_per_position)
      .def_readonly("time_to_first_token", &Metrics::time_to_first_token)
      .def_readonly("decode_time", &Metrics::decode_time);
}

}  // namespace

void register_engine(py::module_& module) {
  register_sampling(module);
  register_values(module);
  py::class_<Engine>(module, "Engine", "Decodes requests; one caller at a time.")
      .def(py::init(&make_engine), "model"_a, "heads"_a, "tree"_a, "max_num_seqs"_a = 8,
           "max_num_batched_tokens"_a = 0, "max_model_len"_a = 0, "kv_cache_memory"_a = 0,
           "kv_cache_dtype"_a = "auto", "enable_prefix_caching"_a = true, "adaptive"_a = false,
           "step_seconds"_a = std::vector<float>{}, "path_probability"_a = std::vector<float>{},
           "synthetic_acceptance_length"_a = 0.0F, "acceptance_method"_a = "exact",
           "posterior_threshold"_a = 0.09f, "posterior_alpha"_a = 0.3f,
           "`step_seconds[r - 1]`: of a forward pass of r rows. `path_probability[n]`: how often "
           "node n of `tree` is accepted, the root 1. `adaptive` chooses nodes at every step.")
      .def(
          "submit",
          [](Engine& engine, const std::vector<int32_t>& tokens, const SamplingParams& sampling) {
            return engine.submit(tokens, sampling);
          },
          "tokens"_a, "sampling"_a)
      .def("step", &step)
      .def("cancel", &Engine::cancel, "request_id"_a)
      .def("has_unfinished", &Engine::has_unfinished)
      .def("set_tree", &Engine::set_tree, "tree"_a)
      .def("metrics", py::overload_cast<int64_t>(&Engine::metrics, py::const_), "request_id"_a)
      .def("totals", [](const Engine& engine) { return engine.metrics(); })
      .def("forget", &Engine::forget, "request_id"_a)
      .def_property_readonly("num_pages", &Engine::num_pages)
      .def_property_readonly("num_free_pages", &Engine::num_free_pages)
      .def_property_readonly("options", &Engine::options)
      .def_property_readonly("kv_cache_bytes", &Engine::kv_cache_bytes)
      .def_property_readonly("workspace_bytes", &Engine::workspace_bytes);
  module.def("cpu_isas", &cpu_isas, "Instruction sets this machine runs, best first.");
  module.def("why_no_cuda", &why_no_cuda, "Why no GPU can be used; empty: one can.");
}

}  // namespace medusa
