#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <cstring>

#include "base/check.h"
#include "bindings/bindings.h"
#include "medusa/config.h"
#include "medusa/model.h"

namespace py = pybind11;
using namespace py::literals;

namespace medusa {
namespace {

RopeScaling parse_scaling(const std::string& text_) {
  if (text_ == "none") return RopeScaling::none;
  if (text_ == "linear") return RopeScaling::linear;
  if (text_ == "llama3") return RopeScaling::llama3;
  throw ModelFormatError(text("rope_scaling_type: expected none, linear or llama3, found ", text_));
}

std::string scaling_name(RopeScaling scaling) {
  switch (scaling) {
    case RopeScaling::linear:
      return "linear";
    case RopeScaling::llama3:
      return "llama3";
    case RopeScaling::none:
      break;
  }
  return "none";
}

ComputeType parse_compute(const std::string& name) {
  if (name == "bfloat16") return ComputeType::bfloat16;
  if (name == "float32") return ComputeType::float32;
  if (name == "float16") return ComputeType::float16;
  throw InvalidArgument(text("compute_type: expected bfloat16, float16 or float32, found ", name));
}

std::string compute_name(ComputeType type) {
  switch (type) {
    case ComputeType::float32:
      return "float32";
    case ComputeType::float16:
      return "float16";
    case ComputeType::bfloat16:
      break;
  }
  return "bfloat16";
}

ModelConfig make_config(const py::kwargs& kwargs) {
  py::object config = py::cast(ModelConfig{});
  for (const auto& [key, value] : kwargs) {
    const auto name = py::cast<std::string>(key);
    check(py::hasattr(config, key), "ModelConfig: unknown field ", name);
    py::setattr(config, key, value);
  }
  return config.cast<ModelConfig>();
}

WeightFormat parse_format(const std::string& name) {
  if (name == "as_stored") return WeightFormat::as_stored;
  check(name == "widened", "weight_format: expected \"as_stored\" or \"widened\", found \"", name,
        "\"");
  return WeightFormat::widened;
}

Model load_model(const ModelConfig& config, const py::dict& tensors,
                 const std::string& compute_type, const std::string& weight_format, int num_threads,
                 const std::string& device, uintptr_t stream) {
  TensorMap map;
  for (const auto& [key, value] : tensors) {
    const auto name = py::cast<std::string>(key);
    map.emplace(name, to_host_tensor(value, name));
  }
  const LoadOptions options{parse_compute(compute_type), parse_format(weight_format), num_threads,
                            device, reinterpret_cast<void*>(stream)};
  const py::gil_scoped_release release;
  return Model::load(config, map, options);
}

py::array_t<float> model_logits(const Model& model, const std::vector<int32_t>& tokens,
                                const std::vector<int>& chunks) {
  std::vector<float> out;
  {
    const py::gil_scoped_release release;
    out = model.logits(tokens, chunks);
  }
  const auto vocab = static_cast<py::ssize_t>(model.config().vocab_size);
  py::array_t<float> result({static_cast<py::ssize_t>(tokens.size()), vocab});
  std::memcpy(result.mutable_data(), out.data(), out.size() * sizeof(float));
  return result;
}

// Rows of all sequences one after another: uint16 holding bfloat16 bits, float16 or float32.
py::array model_hidden_states(const Model& model,
                              const std::vector<std::vector<int32_t>>& sequences) {
  std::vector<py::ssize_t> first{0};
  for (const auto& sequence : sequences) {
    first.push_back(first.back() + static_cast<py::ssize_t>(sequence.size()));
  }
  const ComputeType type = model.compute_type();
  const bool wide = type == ComputeType::float32, half = type == ComputeType::float16;
  const py::ssize_t hidden = model.config().hidden_size;
  const py::dtype dtype(wide ? "float32" : half ? "float16" : "uint16");
  py::array out(dtype, {first.back(), hidden});
  const size_t row_bytes = hidden * (wide ? sizeof(float) : sizeof(uint16_t));
  auto* data = static_cast<char*>(out.mutable_data());
  const py::gil_scoped_release release;
  model.hidden_states(sequences, [&](int sequence, int token, int count, const void* rows) {
    std::memcpy(data + (first[sequence] + token) * row_bytes, rows, count * row_bytes);
  });
  return out;
}

Heads load_heads(const Model& model, const py::list& residual, const py::list& projection,
                 const std::vector<int32_t>& token_map, bool grounded) {
  Heads::Source source{
      .residual = {}, .projection = {}, .token_map = token_map, .grounded = grounded};
  for (const auto& head : residual) {
    auto& layers = source.residual.emplace_back();
    for (const auto& layer : py::reinterpret_borrow<py::list>(head)) {
      const auto pair = py::reinterpret_borrow<py::tuple>(layer);
      auto& to = layers.emplace_back();
      to.weight = to_host_tensor(pair[0], "linear.weight");
      if (!pair[1].is_none()) to.bias = to_host_tensor(pair[1], "linear.bias");
    }
  }
  for (const auto& weight : projection) {
    source.projection.push_back(to_host_tensor(weight, "projection"));
  }
  const py::gil_scoped_release release;
  return Heads::load(model, source);
}

py::array_t<int32_t> heads_guesses(const Heads& heads, const py::tuple& hidden,
                                   const std::vector<int32_t>& roots, int top_k) {
  const HostTensor states = to_host_tensor(hidden, "hidden");
  std::vector<int32_t> ids;
  {
    const py::gil_scoped_release release;
    ids = heads.guesses(states, roots, top_k);
  }
  const auto rows = static_cast<py::ssize_t>(roots.size());
  py::array_t<int32_t> result({rows, py::ssize_t{heads.num_heads()}, py::ssize_t{top_k}});
  std::memcpy(result.mutable_data(), ids.data(), ids.size() * sizeof(int32_t));
  return result;
}

void register_config(py::module_& module) {
  py::class_<ModelConfig>(module, "ModelConfig", "Shape of a Llama-family backbone.")
      .def(py::init(&make_config))
      .def_readwrite("architecture", &ModelConfig::architecture)
      .def_readwrite("vocab_size", &ModelConfig::vocab_size)
      .def_readwrite("hidden_size", &ModelConfig::hidden_size)
      .def_readwrite("intermediate_size", &ModelConfig::intermediate_size)
      .def_readwrite("num_hidden_layers", &ModelConfig::num_hidden_layers)
      .def_readwrite("num_attention_heads", &ModelConfig::num_attention_heads)
      .def_readwrite("num_key_value_heads", &ModelConfig::num_key_value_heads)
      .def_readwrite("head_dim", &ModelConfig::head_dim)
      .def_readwrite("max_position_embeddings", &ModelConfig::max_position_embeddings)
      .def_readwrite("rms_norm_eps", &ModelConfig::rms_norm_eps)
      .def_readwrite("rope_theta", &ModelConfig::rope_theta)
      .def_property(
          "rope_scaling_type", [](const ModelConfig& c) { return scaling_name(c.rope_scaling); },
          [](ModelConfig& c, const std::string& name) { c.rope_scaling = parse_scaling(name); })
      .def_readwrite("rope_factor", &ModelConfig::rope_factor)
      .def_readwrite("rope_low_freq_factor", &ModelConfig::rope_low_freq_factor)
      .def_readwrite("rope_high_freq_factor", &ModelConfig::rope_high_freq_factor)
      .def_readwrite("rope_original_max_position_embeddings",
                     &ModelConfig::rope_original_max_position_embeddings)
      .def_readwrite("rope_freq_factors", &ModelConfig::rope_freq_factors)
      .def_readwrite("rope_interleaved", &ModelConfig::rope_interleaved)
      .def_readwrite("sliding_window", &ModelConfig::sliding_window)
      .def_readwrite("tie_word_embeddings", &ModelConfig::tie_word_embeddings);
}

// (..., scales, block): as many as the shape has blocks.
BlockScales to_scales(const py::tuple& parts, const std::vector<int64_t>& shape,
                      const std::string& name) {
  const auto block = py::cast<std::pair<int64_t, int64_t>>(parts[4]);
  check(shape.size() == 2 && block.first > 0 && block.second > 0, name,
        ": expected scales of blocks of a matrix");
  check(py::isinstance<py::array_t<float, py::array::c_style>>(parts[3]), name,
        ": expected scales in a contiguous float32 array");
  const auto values = py::cast<py::array_t<float, py::array::c_style>>(parts[3]);
  const auto blocks = [](int64_t all, int64_t of) { return all / of + (all % of > 0); };
  check(values.ndim() == 2 && values.shape(0) == blocks(shape[0], block.first) &&
            values.shape(1) == blocks(shape[1], block.second),
        name, ": expected one scale for each block of ", block.first, " x ", block.second);
  return {values.data(), block.first, block.second};
}

}  // namespace

HostTensor to_host_tensor(const py::handle& stored, const std::string& name) {
  const auto parts = py::cast<py::tuple>(stored);
  check(parts.size() == 3 || parts.size() == 5, name,
        ": expected (buffer, dtype, shape) or (buffer, dtype, shape, scales, block), found ",
        parts.size(), " items");
  const py::buffer_info info = py::cast<py::buffer>(parts[0]).request();
  py::ssize_t expected = info.itemsize;
  for (py::ssize_t axis = info.ndim - 1; axis >= 0; --axis) {
    check(info.shape[axis] == 1 || info.strides[axis] == expected, name,
          ": expected a C-contiguous buffer");
    expected *= info.shape[axis];
  }
  HostTensor tensor{info.ptr, static_cast<size_t>(info.size * info.itemsize),
                    parse_dtype(py::cast<std::string>(parts[1])),
                    py::cast<std::vector<int64_t>>(parts[2])};
  if (parts.size() == 5) tensor.scales = to_scales(parts, tensor.shape, name);
  return tensor;
}

void register_model(py::module_& module) {
  register_config(module);
  py::class_<Model>(module, "Model", "A backbone with packed weights.")
      .def_static("load", &load_model, "config"_a, "tensors"_a, "compute_type"_a = "bfloat16",
                  "weight_format"_a = "as_stored", "num_threads"_a = 0, "device"_a = "cpu",
                  "stream"_a = 0,
                  "Packs `tensors` (name to (buffer, dtype, shape)), which may go away afterwards.")
      .def_property_readonly("config", &Model::config)
      .def_property_readonly("compute_type",
                             [](const Model& model) { return compute_name(model.compute_type()); })
      .def_property_readonly(
          "weight_formats", &Model::weight_formats,
          "Types that matrices are kept in, by name, and how many weights of each.")
      .def_property_readonly("num_threads", &Model::num_threads)
      .def_property_readonly("device_name", &Model::device_name)
      .def_property_readonly("weight_bytes", &Model::weight_bytes)
      .def_property_readonly("step_bytes", &Model::step_bytes)
      .def("logits", &model_logits, "tokens"_a, "chunks"_a = std::vector<int>{},
           "Logits, float32 (len(tokens), vocab_size), of a sequence run in chunks.")
      .def("hidden_states", &model_hidden_states, "sequences"_a,
           "States after the final norm, (total tokens, hidden_size): float32, or uint16 holding "
           "bfloat16 bits.");
  py::class_<Heads>(module, "Heads", "Medusa heads on a Model.")
      .def_static("load", &load_heads, "model"_a, "residual"_a, "projection"_a = py::list(),
                  "token_map"_a = std::vector<int32_t>{}, "grounded"_a = false,
                  "`residual`: [head][layer] of (weight, bias or None); `projection`: V1 only.")
      .def("guesses", &heads_guesses, "hidden"_a, "roots"_a, "top_k"_a,
           "Ids (len(roots), num_heads, top_k), best first, guessed after each row of `hidden`.")
      .def_property_readonly("num_heads", &Heads::num_heads)
      .def_property_readonly("num_layers", &Heads::num_layers)
      .def_property_readonly("version", &Heads::version)
      .def_property_readonly("grounded", &Heads::grounded)
      .def_property_readonly("draft_vocab_size", &Heads::draft_vocab_size)
      .def_property_readonly("weight_bytes", &Heads::weight_bytes);
}

}  // namespace medusa
