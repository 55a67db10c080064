#include "gpu/probes.h"

#include <algorithm>

#include "backend/cuda/device/memory.cuh"
#include "backend/cuda/device/threads.cuh"
#include "backend/cuda/launch.h"

namespace medusa::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kAhead = 8;              // loads of a thread under way
constexpr int64_t kMostBlocks = 1056;  // eight for each multiprocessor of an H200

__global__ void __launch_bounds__(kThreads)
    read_kernel(const char* data, int64_t vectors, uint32_t* sink) {
  const int64_t threads = int64_t{gridDim.x} * kThreads;
  uint32_t seen = 0;
  for (int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x; i < vectors;
       i += threads * kAhead) {
    uint4 some[kAhead] = {};
#pragma unroll
    for (int j = 0; j < kAhead; ++j) {
      if (i + j * threads < vectors) some[j] = load_once_16(data + (i + j * threads) * 16);
    }
#pragma unroll
    for (int j = 0; j < kAhead; ++j) seen ^= some[j].x ^ some[j].y ^ some[j].z ^ some[j].w;
  }
  if (seen == 0x9e3779b9) *sink = seen;
}

__global__ void idle_kernel(int) {}

}  // namespace

void read_stream(const Stream& stream, const void* data, size_t bytes, uint32_t* sink) {
  const auto vectors = static_cast<int64_t>(bytes / 16);
  const int64_t wanted = (vectors + kThreads * kAhead - 1) / (kThreads * kAhead);
  const auto blocks = static_cast<unsigned>(std::min(kMostBlocks, wanted));
  launch(stream, dim3(blocks), kThreads, 0, read_kernel, static_cast<const char*>(data), vectors,
         sink);
}

void do_nothing(const Stream& stream) { launch(stream, dim3(1), kWarp, 0, idle_kernel, 0); }

}  // namespace medusa::cuda
