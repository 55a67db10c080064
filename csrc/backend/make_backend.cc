#include <charconv>
#include <string_view>

#include "backend/backend.h"
#include "base/check.h"

namespace medusa {
namespace {

// "cuda" is its device 0; -1: no name of a GPU.
int parse_cuda(std::string_view device) {
  constexpr std::string_view kName = "cuda";
  if (!device.starts_with(kName)) return -1;
  device.remove_prefix(kName.size());
  if (device.empty()) return 0;
  int number = -1;
  const char* end = device.data() + device.size();
  const auto [last, error] = std::from_chars(device.data() + 1, end, number);
  return device[0] == ':' && error == std::errc() && last == end ? number : -1;
}

}  // namespace

std::shared_ptr<Backend> make_backend(const LoadOptions& options) {
  const std::string& device = options.device;
  // A GPU must be asked for by name until the device's tests have passed on one (docs/cuda.md).
  if (device == "cpu" || device == "auto") {
    check(options.stream == nullptr, "stream: expected device cuda, found ", device);
    check(options.compute_type != ComputeType::float16,
          "dtype: float16 is for CUDA only; use bfloat16 or float32");
    return make_cpu_backend(options);
  }
  const int number = parse_cuda(device);
  check(number >= 0, "device: expected auto, cpu, cuda or cuda:N, found ", device);
  return make_cuda_backend(options, number);
}

}  // namespace medusa
