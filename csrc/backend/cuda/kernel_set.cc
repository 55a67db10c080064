#include "backend/cuda/kernel_set.h"

#include <cstdlib>
#include <string_view>

#include "base/check.h"

namespace medusa::cuda {

// Code for 9.0a runs on no later device.
KernelSet kernel_set_of(const DeviceInfo& device) {
  const char* value = std::getenv("MEDUSA_CUDA_KERNELS");
  const std::string_view wanted = value == nullptr || *value == '\0' ? "auto" : value;
  check(wanted == "auto" || wanted == "portable" || wanted == "sm90",
        "MEDUSA_CUDA_KERNELS: expected auto, portable or sm90, found ", wanted);
  const bool possible = device.major == 9 && device.minor == 0;
  check(wanted != "sm90" || possible, "MEDUSA_CUDA_KERNELS=sm90: expected a GPU of compute ",
        "capability 9.0, found ", device.name, " with ", device.major, ".", device.minor);
  return possible && wanted != "portable" ? KernelSet::sm90 : KernelSet::portable;
}

}  // namespace medusa::cuda
