// Dropout whose noise is a function of seed, step, site, row and column, the same as on the CPU:
// element e of a group of 128 has the (e / 16)-th half word, low halves first, of Philox at counter
// 16 · group + e % 16. A thread takes the eight elements of one counter.
#include "backend/cuda/backbone_kernels.h"
#include "backend/cuda/device/element.cuh"
#include "backend/cuda/device/threads.cuh"
#include "backend/cuda/launch.h"
#include "base/philox.h"

namespace medusa::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kGroup = 128, kLanes = 16;  // elements, and counters, of a group

template <class T>
struct Store {
  T* out;
  const T* x;
  __device__ __forceinline__ void operator()(int64_t i, float factor) const {
    out[i] = from_float<T>(to_float(x[i]) * factor);
  }
  bool operator==(const Store&) const = default;
};

struct AddTo {
  float* out;
  const float* x;
  __device__ __forceinline__ void operator()(int64_t i, float factor) const {
    out[i] += x[i] * factor;
  }
  bool operator==(const AddTo&) const = default;
};

template <class Body>
__global__ void __launch_bounds__(kThreads)
    dropout_kernel(DropoutArgs a, int64_t counters, Body body) {
  const int64_t at = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (at >= counters) return;
  const int of_row = (a.cols + kGroup - 1) / kGroup * kLanes;
  const int64_t row = at / of_row;
  const int counter = static_cast<int>(at % of_row);
  const auto words = philox(
      {static_cast<uint32_t>(counter), a.first_row + static_cast<uint32_t>(row), a.site, a.step},
      a.seed);
  const uint32_t word[4] = {words[0], words[1], words[2], words[3]};
  const int first = counter / kLanes * kGroup + counter % kLanes;
#pragma unroll
  for (int j = 0; j < 8; ++j) {
    const int column = first + j * kLanes;
    const uint32_t half = j % 2 == 0 ? word[j / 2] & 0xffffu : word[j / 2] >> 16;
    if (column < a.cols) body(row * a.cols + column, half >= a.threshold ? a.factor : 0.0f);
  }
}

template <class Body>
void each(const Stream& stream, const DropoutArgs& a, int64_t rows, const Body& body) {
  const int64_t counters = rows * ((a.cols + kGroup - 1) / kGroup) * kLanes;
  const dim3 grid(static_cast<unsigned>((counters + kThreads - 1) / kThreads));
  launch(stream, grid, kThreads, 0, dropout_kernel<Body>, a, counters, body);
}

}  // namespace

void dropout(const Stream& stream, Element element, void* out, const void* x, const DropoutArgs& a,
             int64_t rows) {
  if (element == Element::f32) {
    return each(stream, a, rows,
                Store<float>{static_cast<float*>(out), static_cast<const float*>(x)});
  }
  each(stream, a, rows, Store<bf16>{static_cast<bf16*>(out), static_cast<const bf16*>(x)});
}

void add_dropped(const Stream& stream, float* out, const float* x, const DropoutArgs& a,
                 int64_t rows) {
  each(stream, a, rows, AddTo{out, x});
}

}  // namespace medusa::cuda
