#include "medusa/trainer.h"

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "base/check.h"
#include "bindings/bindings.h"

namespace py = pybind11;

namespace medusa {
namespace {

template <class T>
using Array = py::array_t<T, py::array::c_style>;

/// A float32 matrix, or a bfloat16 one as uint16 bits. Views the array.
HostTensor matrix(const py::array& array, const char* name) {
  check(array.ndim() == 2 && (array.flags() & py::array::c_style) != 0, name,
        " must be a C-contiguous matrix");
  HostTensor tensor{.data = array.data(),
                    .bytes = static_cast<size_t>(array.nbytes()),
                    .shape = {array.shape(0), array.shape(1)}};
  if (py::isinstance<Array<uint16_t>>(array)) {
    tensor.dtype = DType::bf16;
  } else {
    check(py::isinstance<Array<float>>(array), name,
          " must be float32, or uint16 holding bfloat16");
  }
  return tensor;
}

template <class T>
std::span<const T> span_of(const Array<T>& array) {
  return {array.data(), static_cast<size_t>(array.size())};
}

using Roots = std::optional<Array<int32_t>>;

TrainBatch batch_of(const py::array& hidden, const Array<int64_t>& rows,
                    const Array<int32_t>& targets, const Roots& roots) {
  check(targets.ndim() == 2 && targets.shape(0) == rows.size(), "targets must be (rows, heads)");
  return {.hidden = matrix(hidden, "hidden"),
          .rows = span_of(rows),
          .targets = span_of(targets),
          .roots = roots ? span_of(*roots) : std::span<const int32_t>{}};
}

py::tuple evaluate(Trainer& trainer, const py::array& hidden, const Array<int64_t>& rows,
                   const Array<int32_t>& targets, const Roots& roots) {
  const TrainBatch batch = batch_of(hidden, rows, targets, roots);
  Array<float> log_probs({targets.shape(0), targets.shape(1)});
  Array<int32_t> ranks({targets.shape(0), targets.shape(1)});
  const std::span<float> probs{log_probs.mutable_data(), batch.targets.size()};
  const std::span<int32_t> order{ranks.mutable_data(), batch.targets.size()};
  {
    const py::gil_scoped_release unlocked;
    trainer.evaluate(batch, probs, order);
  }
  return py::make_tuple(log_probs, ranks);
}

/// name -> array over the trainer's own memory, which `self` keeps alive.
py::dict views(const py::object& self, std::span<float> Parameter::* member) {
  py::dict out;
  for (const Parameter& p : self.cast<const Trainer&>().parameters()) {
    out[py::str(p.name)] = py::array_t<float>(p.shape, (p.*member).data(), self);
  }
  return out;
}

auto views_of(std::span<float> Parameter::* member) {
  return [member](const py::object& self) { return views(self, member); };
}

template <StepReport (Trainer::*method)(const TrainBatch&)>
StepReport run(Trainer& trainer, const py::array& hidden, const Array<int64_t>& rows,
               const Array<int32_t>& targets, const Roots& roots) {
  const TrainBatch batch = batch_of(hidden, rows, targets, roots);
  const py::gil_scoped_release unlocked;
  return (trainer.*method)(batch);
}

Trainer make_trainer(const py::array& lm_head, const std::optional<py::array>& embedding,
                     int version, int num_heads, int num_layers, float head_decay,
                     float learning_rate, double beta1, double beta2, float epsilon,
                     float weight_decay, float max_grad_norm, int64_t warmup_steps,
                     int64_t total_steps, const std::string& compute_type, int num_threads,
                     uint64_t seed, const std::string& device) {
  check(compute_type == "bfloat16" || compute_type == "float32",
        "compute_type must be \"bfloat16\" or \"float32\", found \"", compute_type, "\"");
  return Trainer(
      {.version = version,
       .num_heads = num_heads,
       .num_layers = num_layers,
       .head_decay = head_decay,
       .learning_rate = learning_rate,
       .beta1 = beta1,
       .beta2 = beta2,
       .epsilon = epsilon,
       .weight_decay = weight_decay,
       .max_grad_norm = max_grad_norm,
       .warmup_steps = warmup_steps,
       .total_steps = total_steps,
       .compute_type = compute_type == "float32" ? ComputeType::float32 : ComputeType::bfloat16,
       .device = device,
       .num_threads = num_threads,
       .seed = seed},
      matrix(lm_head, "lm_head"),
      embedding ? std::optional(matrix(*embedding, "embedding")) : std::nullopt);
}

}  // namespace

void register_trainer(py::module_& m) {
  py::class_<StepReport>(m, "StepReport", "Of one batch, before its update.")
      .def_readonly("step", &StepReport::step)
      .def_readonly("loss", &StepReport::loss)
      .def_readonly("grad_norm", &StepReport::grad_norm)
      .def_readonly("learning_rate", &StepReport::learning_rate)
      .def_readonly("head_loss", &StepReport::head_loss)
      .def_readonly("head_accuracy", &StepReport::head_accuracy);

  const TrainerOptions d;
  py::class_<Trainer>(m, "Trainer", "Trains Medusa heads on cached hidden states.")
      .def(py::init(&make_trainer), py::keep_alive<1, 3>(), py::arg("lm_head"),
           py::arg("embedding") = py::none(), py::kw_only(), py::arg("version") = d.version,
           py::arg("num_heads") = d.num_heads, py::arg("num_layers") = d.num_layers,
           py::arg("head_decay") = d.head_decay, py::arg("learning_rate") = d.learning_rate,
           py::arg("beta1") = d.beta1, py::arg("beta2") = d.beta2, py::arg("epsilon") = d.epsilon,
           py::arg("weight_decay") = d.weight_decay, py::arg("max_grad_norm") = d.max_grad_norm,
           py::arg("warmup_steps") = d.warmup_steps, py::arg("total_steps") = d.total_steps,
           py::arg("compute_type") = "bfloat16", py::arg("num_threads") = d.num_threads,
           py::arg("seed") = d.seed, py::arg("device") = d.device)
      .def("backward", &run<&Trainer::backward>, py::arg("hidden"), py::arg("rows"),
           py::arg("targets"), py::arg("roots") = py::none())
      .def("step", &run<&Trainer::step>, py::arg("hidden"), py::arg("rows"), py::arg("targets"),
           py::arg("roots") = py::none())
      .def("evaluate", &evaluate, py::arg("hidden"), py::arg("rows"), py::arg("targets"),
           py::arg("roots") = py::none())
      .def("weights", views_of(&Parameter::weights))
      .def("gradients", views_of(&Parameter::gradients))
      .def("mean", views_of(&Parameter::mean))
      .def("square", views_of(&Parameter::square))
      .def("refresh", &Trainer::refresh)
      .def("learning_rate", &Trainer::learning_rate, py::arg("step"))
      .def_property("num_steps", &Trainer::num_steps, &Trainer::set_num_steps)
      .def_property_readonly("device_name", &Trainer::device_name);
}

}  // namespace medusa
