#pragma once

#include <string>

namespace medusa::cuda {

/// "cuda (NVIDIA H100, sm_90)".
std::string device_name(int device);

/// Makes it the device of this thread's calls. Throws DeviceError, with advice, where there is no
/// such device or none that the kernels run on.
void choose_device(int device);

}  // namespace medusa::cuda
