#include "tensor/low_rank.h"

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include "base/check.h"
#include "bindings/bindings.h"
#include "tensor/quants.h"

namespace py = pybind11;

namespace medusa {
namespace {

using Floats = py::array_t<float, py::array::c_style>;

void check_operands(const HostTensor& base, DType dtype, const Floats& up, const Floats& down) {
  check(dtype == DType::f32 || dtype == DType::f16 || dtype == DType::bf16,
        "add_low_rank: dtype: expected F32, F16 or BF16, found ", name(dtype));
  check(is_weight_dtype(base.dtype) && (base.shape.size() == 1 || base.shape.size() == 2) &&
            base.shape.back() % block_elements(base.dtype) == 0,
        "add_low_rank: base: expected a vector or a matrix of weights");
  int64_t blocks = base.shape.back() / block_elements(base.dtype);
  if (base.shape.size() == 2) blocks *= base.shape[0];
  check(base.bytes == static_cast<size_t>(blocks) * block_bytes(base.dtype),
        "add_low_rank: base has ", base.bytes, " bytes for its shape");
  const int64_t rows = base.shape.size() == 2 ? base.shape[0] : 1;
  check(up.ndim() == 2 && down.ndim() == 2 && up.shape(1) == down.shape(0) && up.shape(0) == rows &&
            down.shape(1) == base.shape.back(),
        "add_low_rank: up and down: expected (", rows, ", rank) and (rank, ", base.shape.back(),
        ")");
}

py::tuple add(const py::tuple& tensor, const Floats& up, const Floats& down, float scale,
              const std::string& dtype_name) {
  const HostTensor base = to_host_tensor(tensor, "base");
  const DType dtype = parse_dtype(dtype_name);
  check_operands(base, dtype, up, down);
  int64_t count = 1;
  for (const int64_t extent : base.shape) count *= extent;
  py::array_t<uint8_t> out(static_cast<py::ssize_t>(count) *
                           static_cast<py::ssize_t>(block_bytes(dtype)));
  const LowRank added{up.data(), down.data(), down.shape(0), scale};
  float most = 0;
  void* to = out.mutable_data();
  {
    const py::gil_scoped_release unlocked;
    ThreadPool pool(0);
    most = add_low_rank(to, dtype, base, added, pool);
  }
  return py::make_tuple(out, most);
}

}  // namespace

void register_low_rank(py::module_& module) {
  module.def("add_low_rank", &add, py::arg("base"), py::arg("up"), py::arg("down"),
             py::arg("scale"), py::arg("dtype"),
             "base + scale * up @ down in float32, rounded once: the bytes, and the largest "
             "magnitude (NaN where there is one).");
}

}  // namespace medusa
