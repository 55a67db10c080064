#include "backend/cuda/choose_device.h"

#include "backend/cuda/runtime.h"
#include "base/check.h"
#include "medusa/device.h"

namespace medusa {
namespace cuda {
namespace {

constexpr int kLeastMajor = 8;  // bf16 tensor cores and asynchronous copies

std::string why_not(int device) {
  const DeviceInfo info = describe(device);
  if (info.major >= kLeastMajor) return "";
  return text("GPU ", device, " (", info.name,
              "): expected compute capability 8.0 or later, found ", info.major, ".", info.minor,
              "; use device \"cpu\"");
}

}  // namespace

std::string device_name(int device) {
  const DeviceInfo info = describe(device);
  return text("cuda (", info.name, ", sm_", info.major, info.minor, ")");
}

void choose_device(int device) {
  const int count = device_count();
  check<DeviceError>(count > 0, "device cuda: ", why_no_device());
  check<DeviceError>(device < count, "device cuda:", device, ": this machine has ", count,
                     " GPUs, numbered from 0");
  const std::string why = why_not(device);
  check<DeviceError>(why.empty(), why);
  use_device(device);
}

}  // namespace cuda

std::string why_no_cuda() {
  return cuda::device_count() == 0 ? cuda::why_no_device() : cuda::why_not(0);
}

}  // namespace medusa
