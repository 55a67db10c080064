#include <charconv>
#include <string_view>

#include "backend/backbone_train_backend.h"
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

int cuda_number(std::string_view device) {
  const int number = parse_cuda(device);
  check(number >= 0, "device: expected auto, cpu, cuda or cuda:N, found ", device);
  return number;
}

}  // namespace

std::shared_ptr<Backend> make_backend(const LoadOptions& options) {
  const std::string& device = options.device;
  if (device == "cpu" || device == "auto") {
    check(options.stream == nullptr, "stream: expected device cuda, found ", device);
    check(options.compute_type != ComputeType::float16,
          "dtype: float16 is for CUDA only; use bfloat16 or float32");
    return make_cpu_backend(options);
  }
  return make_cuda_backend(options, cuda_number(device));
}

std::shared_ptr<BackboneTrainBackend> make_backbone_train_backend(const std::string& device,
                                                                  ComputeType compute_type,
                                                                  int num_threads) {
  check(compute_type != ComputeType::float16,
        "dtype: gradients underflow in float16; train in bfloat16 or float32");
  if (device == "cpu" || device == "auto") {
    return make_cpu_backbone_train_backend(compute_type, num_threads);
  }
  return make_cuda_backbone_train_backend(compute_type, cuda_number(device));
}

std::shared_ptr<TrainBackend> make_train_backend(const std::string& device,
                                                 ComputeType compute_type, int num_threads) {
  return make_backbone_train_backend(device, compute_type, num_threads);
}

}  // namespace medusa
