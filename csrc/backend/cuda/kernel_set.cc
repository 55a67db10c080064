#include "backend/cuda/kernel_set.h"

#include <charconv>
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

bool overlap_wanted(const DeviceInfo& device) {
  const char* value = std::getenv("MEDUSA_CUDA_OVERLAP");
  const std::string_view wanted = value == nullptr || *value == '\0' ? "0" : value;
  check(wanted == "0" || wanted == "1", "MEDUSA_CUDA_OVERLAP: expected 0 or 1, found ", wanted);
  check(wanted == "0" || device.major >= 9, "MEDUSA_CUDA_OVERLAP=1: expected a GPU of compute ",
        "capability 9.0 or later, found ", device.name, " with ", device.major, ".", device.minor);
  return wanted == "1";
}

int steps_wanted(bool graphs) {
  const char* value = std::getenv("MEDUSA_CUDA_LOOP");
  const std::string_view wanted = value == nullptr || *value == '\0' ? "0" : value;
  int steps = -1;
  const auto [end, error] = std::from_chars(wanted.data(), wanted.data() + wanted.size(), steps);
  check(error == std::errc() && end == wanted.data() + wanted.size() && steps >= 0 &&
            steps <= kMostStepsAhead,
        "MEDUSA_CUDA_LOOP: expected steps from 0 to ", kMostStepsAhead, ", found ", wanted);
  check(steps == 0 || graphs, "MEDUSA_CUDA_LOOP: expected graphs, found MEDUSA_CUDA_GRAPHS=0");
  return steps;
}

}  // namespace medusa::cuda
