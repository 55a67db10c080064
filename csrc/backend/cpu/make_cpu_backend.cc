#include <algorithm>

#include "backend/cpu/cpu_backend.h"
#include "base/check.h"

namespace medusa {

std::shared_ptr<Backend> make_cpu_backend(cpu::Isa isa, const LoadOptions& options) {
  const auto supported = cpu::supported_isas();
  check<DeviceError>(std::find(supported.begin(), supported.end(), isa) != supported.end(),
                     "this machine does not run ", name(isa));
  return make_cpu_backend(cpu::kernels(isa), options);
}

std::shared_ptr<Backend> make_cpu_backend(const LoadOptions& options) {
  return make_cpu_backend(cpu::choose_isa(), options);
}

}  // namespace medusa
