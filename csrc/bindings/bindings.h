#pragma once

#include <pybind11/pybind11.h>

#include <string>

#include "medusa/model.h"

namespace medusa {

void register_errors(pybind11::module_& module);
void register_model(pybind11::module_& module);
void register_tree(pybind11::module_& module);
void register_engine(pybind11::module_& module);
void register_typical(pybind11::module_& module);
void register_low_rank(pybind11::module_& module);
void register_read_stream(pybind11::module_& module);
void register_joint_trainer(pybind11::module_& module);
void register_trainer(pybind11::module_& module);

/// (buffer, dtype name, shape), and of F8_E4M3 its scales, f32 (blocks of rows, of columns), and a
/// block's (rows, columns), as a view; arrays must be C-contiguous and outlive it.
HostTensor to_host_tensor(const pybind11::handle& stored, const std::string& name);

}  // namespace medusa
