#include "medusa/joint_trainer.h"

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include "base/check.h"
#include "bindings/bindings.h"

namespace py = pybind11;

namespace medusa {
namespace {

using Ids = py::array_t<int32_t, py::array::c_style>;
using PyBatch = std::tuple<Ids, Ids, Ids, Ids>;  // tokens, lengths, lm_targets, head_targets

std::span<const int32_t> span_of(const Ids& ids) {
  return {ids.data(), static_cast<size_t>(ids.size())};
}

TokenBatch batch_of(const PyBatch& batch) {
  const auto& [tokens, lengths, lm_targets, head_targets] = batch;
  return {span_of(tokens), span_of(lengths), span_of(lm_targets), span_of(head_targets)};
}

template <JointReport (JointTrainer::*method)(std::span<const TokenBatch>)>
JointReport run(JointTrainer& trainer, const std::vector<PyBatch>& batches) {
  std::vector<TokenBatch> all;
  for (const PyBatch& batch : batches) all.push_back(batch_of(batch));
  const py::gil_scoped_release unlocked;
  return (trainer.*method)(all);
}

template <class T>
std::span<T> span_of(py::array_t<T>& array) {
  return {array.mutable_data(), static_cast<size_t>(array.size())};
}

py::dict evaluate(JointTrainer& trainer, const PyBatch& batch, int num_heads) {
  const TokenBatch tokens = batch_of(batch);
  const auto rows = static_cast<py::ssize_t>(tokens.tokens.size());
  const std::vector<py::ssize_t> shape{rows, num_heads};
  py::array_t<float> log_prob(rows), base_log_prob(rows), divergence(rows), head_log_prob(shape);
  py::array_t<int32_t> head_rank(shape);
  const JointScores scores{span_of(log_prob), span_of(base_log_prob), span_of(divergence),
                           span_of(head_log_prob), span_of(head_rank)};
  for (const std::span<float> values :
       {scores.log_prob, scores.base_log_prob, scores.divergence, scores.head_log_prob}) {
    std::fill(values.begin(), values.end(), 0.0f);
  }
  {
    const py::gil_scoped_release unlocked;
    trainer.evaluate(tokens, scores);
  }
  py::dict out;
  out["log_prob"] = log_prob;
  out["base_log_prob"] = base_log_prob;
  out["divergence"] = divergence;
  out["head_log_prob"] = head_log_prob;
  out["head_rank"] = head_rank;
  return out;
}

py::array_t<float> hidden_states(JointTrainer& trainer, const PyBatch& batch, bool trained) {
  std::vector<float> states;
  {
    const py::gil_scoped_release unlocked;
    states = trainer.hidden_states(batch_of(batch), trained);
  }
  const auto rows = std::get<0>(batch).size();
  py::array_t<float> out({rows, static_cast<py::ssize_t>(states.size()) / rows});
  std::copy(states.begin(), states.end(), out.mutable_data());
  return out;
}

/// Adapters without what pads their rank.
std::vector<py::ssize_t> shape_of(const Parameter& p, int rank) {
  const auto rows = static_cast<py::ssize_t>(p.shape[0]);
  if (p.shape.size() == 1) return {rows};
  const auto cols = static_cast<py::ssize_t>(p.shape[1]);
  if (p.name.find(".lora_A.") != std::string::npos) return {rank, cols};
  if (p.name.find(".lora_B.") != std::string::npos) return {rows, rank};
  return {rows, cols};
}

struct Joint {
  JointTrainer trainer;
  int rank, num_heads;
};

/// name -> array over the trainer's own memory, which `self` keeps alive.
auto views_of(std::span<float> Parameter::* member) {
  return [member](const py::object& self) {
    const auto& joint = self.cast<const Joint&>();
    py::dict out;
    for (const Parameter& p : joint.trainer.parameters()) {
      const auto shape = shape_of(p, joint.rank);
      std::vector<py::ssize_t> strides{sizeof(float)};
      if (shape.size() == 2) {
        strides.insert(strides.begin(), static_cast<py::ssize_t>(p.shape[1] * sizeof(float)));
      }
      out[py::str(p.name)] = py::array_t<float>(shape, strides, (p.*member).data(), self);
    }
    return out;
  };
}

template <class Enum>
Enum choose(const char* what, const std::string& name,
            std::initializer_list<std::pair<const char*, Enum>> choices) {
  std::string names;
  for (const auto& [key, value] : choices) {
    if (name == key) return value;
    names += (names.empty() ? "" : ", ") + std::string(key);
  }
  throw InvalidArgument(text(what, ": expected one of ", names, ", found ", name));
}

/// Moves an option out of `left`, if it is there.
template <class T>
void take(py::dict& left, const char* name, T& to) {
  if (!left.contains(name)) return;
  to = left[name].cast<T>();
  left.attr("pop")(name);
}

template <class Enum>
void take(py::dict& left, const char* name, Enum& to,
          std::initializer_list<std::pair<const char*, Enum>> choices) {
  std::string chosen;
  take(left, name, chosen);
  if (!chosen.empty()) to = choose(name, chosen, choices);
}

void require_empty(const py::dict& left) {
  for (const auto& [name, value] : left) {
    throw InvalidArgument(text("JointTrainer: unknown option ", name.cast<std::string>()));
  }
}

void take_training(py::dict& left, TrainerOptions& t) {
  take(left, "version", t.version);
  take(left, "num_heads", t.num_heads);
  take(left, "num_layers", t.num_layers);
  take(left, "head_decay", t.head_decay);
  take(left, "beta1", t.beta1);
  take(left, "beta2", t.beta2);
  take(left, "epsilon", t.epsilon);
  take(left, "weight_decay", t.weight_decay);
  take(left, "max_grad_norm", t.max_grad_norm);
  take(left, "num_threads", t.num_threads);
  take(left, "device", t.device);
  take(left, "seed", t.seed);
  take<ComputeType>(left, "compute_type", t.compute_type,
                    {{"bfloat16", ComputeType::bfloat16}, {"float32", ComputeType::float32}});
}

TrainStage stage_of(const py::dict& values) {
  TrainStage s;
  py::dict left(**values);
  take(left, "steps", s.steps);
  take(left, "heads_only", s.heads_only);
  take(left, "learning_rate", s.learning_rate);
  take(left, "warmup_steps", s.warmup_steps);
  take<RateSchedule>(left, "schedule", s.schedule,
                     {{"cosine", RateSchedule::cosine},
                      {"linear", RateSchedule::linear},
                      {"constant", RateSchedule::constant}});
  require_empty(left);
  return s;
}

JointTrainerOptions options_of(const py::kwargs& kwargs) {
  JointTrainerOptions o;
  py::dict left(**kwargs);
  take_training(left, o.training);
  take(left, "heads_learning_rate_multiple", o.heads_learning_rate_multiple);
  take(left, "heads_coefficient", o.heads_coefficient);
  take(left, "heads_schedule_ratio", o.heads_schedule_ratio);
  take(left, "all_weights", o.all_weights);
  take(left, "lora_rank", o.lora_rank);
  take(left, "lora_alpha", o.lora_alpha);
  take(left, "lora_dropout", o.lora_dropout);
  take(left, "target_modules", o.target_modules);
  take(left, "max_rows", o.max_rows);
  take<HeadsSchedule>(left, "heads_schedule", o.heads_schedule,
                      {{"constant", HeadsSchedule::constant},
                       {"linear", HeadsSchedule::linear},
                       {"sine", HeadsSchedule::sine}});
  take<BackboneLoss>(
      left, "backbone_loss", o.backbone_loss,
      {{"divergence", BackboneLoss::divergence}, {"cross_entropy", BackboneLoss::cross_entropy}});
  std::vector<py::dict> stages;
  take(left, "stages", stages);
  if (!stages.empty()) o.stages.clear();
  for (const py::dict& stage : stages) o.stages.push_back(stage_of(stage));
  require_empty(left);
  return o;
}

std::unique_ptr<Joint> make(const ModelConfig& config, const py::dict& tensors,
                            std::vector<int32_t> token_map, bool grounded,
                            const py::kwargs& kwargs) {
  TensorMap map;
  for (const auto& [key, value] : tensors) {
    const auto name = py::cast<std::string>(key);
    map.emplace(name, to_host_tensor(value, name));
  }
  const JointTrainerOptions options = options_of(kwargs);
  return std::make_unique<Joint>(
      Joint{JointTrainer(config, map, options, std::move(token_map), grounded), options.lora_rank,
            options.training.num_heads});
}

void register_report(py::module_& m) {
  py::class_<JointReport>(m, "JointReport", "Of one step, before its update.")
      .def_readonly("step", &JointReport::step)
      .def_readonly("loss", &JointReport::loss)
      .def_readonly("backbone_loss", &JointReport::backbone_loss)
      .def_readonly("heads_weight", &JointReport::heads_weight)
      .def_readonly("grad_norm", &JointReport::grad_norm)
      .def_readonly("learning_rate", &JointReport::learning_rate)
      .def_readonly("head_loss", &JointReport::head_loss)
      .def_readonly("head_accuracy", &JointReport::head_accuracy);
}

}  // namespace

void register_joint_trainer(py::module_& m) {
  register_report(m);
  using Batches = std::vector<PyBatch>;
  m.def(
      "joint_memory_estimate",
      [](const ModelConfig& config, int64_t draft_vocab, bool grounded, const py::kwargs& kwargs) {
        return JointTrainer::memory_estimate(config, options_of(kwargs), draft_vocab, grounded);
      },
      py::arg("config"), py::arg("draft_vocab"), py::arg("grounded"),
      "Bytes that a JointTrainer of these options holds beside the model's tensors.");
  py::class_<Joint>(m, "JointTrainer",
                    "Trains a backbone, its adapters or all weights, together with Medusa heads.")
      .def(py::init(&make), py::keep_alive<1, 3>(), py::arg("config"), py::arg("tensors"),
           py::arg("token_map") = std::vector<int32_t>{}, py::arg("grounded") = false)
      .def(
          "backward",
          [](Joint& j, const Batches& b) { return run<&JointTrainer::backward>(j.trainer, b); },
          py::arg("batches"))
      .def(
          "step", [](Joint& j, const Batches& b) { return run<&JointTrainer::step>(j.trainer, b); },
          py::arg("batches"))
      .def(
          "evaluate",
          [](Joint& j, const PyBatch& b) { return evaluate(j.trainer, b, j.num_heads); },
          py::arg("batch"))
      .def(
          "hidden_states",
          [](Joint& j, const PyBatch& b, bool trained) {
            return hidden_states(j.trainer, b, trained);
          },
          py::arg("batch"), py::arg("trained") = true)
      .def("weights", views_of(&Parameter::weights))
      .def("gradients", views_of(&Parameter::gradients))
      .def("mean", views_of(&Parameter::mean))
      .def("square", views_of(&Parameter::square))
      .def("refresh", [](Joint& j) { j.trainer.refresh(); })
      .def(
          "learning_rate",
          [](const Joint& j, int64_t step) { return j.trainer.learning_rate(step); },
          py::arg("step"))
      .def(
          "heads_weight", [](const Joint& j, int64_t step) { return j.trainer.heads_weight(step); },
          py::arg("step"))
      .def_property(
          "num_steps", [](const Joint& j) { return j.trainer.num_steps(); },
          [](Joint& j, int64_t n) { j.trainer.set_num_steps(n); })
      .def_property_readonly("device_name", [](const Joint& j) { return j.trainer.device_name(); });
}

}  // namespace medusa
