#include <new>

#include "bindings/bindings.h"
#include "medusa/error.h"

namespace py = pybind11;

namespace medusa {
namespace {

void raise(const char* type, const char* what) {
  const py::object errors = py::module_::import("medusa_native.errors");
  PyErr_SetString(errors.attr(type).ptr(), what);
}

void translate(std::exception_ptr pointer) {
  try {
    if (pointer) std::rethrow_exception(pointer);
  } catch (const InvalidArgument& error) {
    raise("InvalidArgument", error.what());
  } catch (const ModelFormatError& error) {
    raise("ModelFormatError", error.what());
  } catch (const OutOfMemory& error) {
    raise("OutOfMemory", error.what());
  } catch (const DeviceError& error) {
    raise("DeviceError", error.what());
  } catch (const Error& error) {
    raise("MedusaError", error.what());
  } catch (const std::bad_alloc&) {
    raise("OutOfMemory", "the system has no memory left for this allocation");
  }
}

}  // namespace

void register_errors(py::module_&) { py::register_exception_translator(&translate); }

}  // namespace medusa
