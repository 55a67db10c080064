#include "medusa/tree.h"

#include <pybind11/stl.h>

#include "bindings/bindings.h"

namespace py = pybind11;
using namespace py::literals;

namespace medusa {
namespace {

std::vector<int> to_vector(std::span<const int> values) { return {values.begin(), values.end()}; }

}  // namespace

void register_tree(py::module_& module) {
  py::class_<Tree>(module, "Tree", "A candidate tree; node 0 is the root (Medusa, section 2.1.2).")
      .def(py::init<std::vector<std::vector<int>>>(), "paths"_a)
      .def_static("root_only", &Tree::root_only, "Plain decoding: a tree of one node.")
      .def_static("chain", &Tree::chain, "depth"_a)
      .def_static("stock", &Tree::stock, "name"_a)
      .def_static("stock_names", &Tree::stock_names)
      .def_static("stock_paths", &Tree::stock_paths, "name"_a,
                  "Paths in published order, best first.")
      .def_property_readonly("size", &Tree::size, "Nodes, root included.")
      .def_property_readonly("depth", &Tree::depth)
      .def_property_readonly("max_rank", &Tree::max_rank)
      .def_property_readonly("paths", &Tree::paths)
      .def_property_readonly(
          "order", [](const Tree& t) { return to_vector(t.order()); },
          "Nodes, root first, each behind its parent, otherwise as given.")
      .def_property_readonly("parents", [](const Tree& t) { return to_vector(t.parents()); })
      .def_property_readonly("depths", [](const Tree& t) { return to_vector(t.depths()); })
      .def_property_readonly("ranks", [](const Tree& t) { return to_vector(t.ranks()); })
      .def("tree_indices", &Tree::tree_indices, "top_k"_a = 10)
      .def("attention_mask", &Tree::attention_mask)
      .def("retrieve_indices", &Tree::retrieve_indices);
}

}  // namespace medusa
