// What a transformer layer computes element by element, and its gradients.
#include "backend/cuda/backbone_kernels.h"
#include "backend/cuda/device/element.cuh"
#include "backend/cuda/device/threads.cuh"
#include "backend/cuda/launch.h"

namespace medusa::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kEach = 4;  // elements of one thread

__device__ __forceinline__ float sigmoid(float x) { return 1.0f / (expf(-x) + 1.0f); }

template <class T>
struct SiluMul {
  T* out;
  const float *gate, *up;
  __device__ __forceinline__ void operator()(int64_t i) const {
    out[i] = from_float<T>(gate[i] * sigmoid(gate[i]) * up[i]);
  }
  bool operator==(const SiluMul&) const = default;
};

template <class T>
struct SiluMulBackward {
  T *dgate, *dup;
  const float *dy, *gate, *up;
  __device__ __forceinline__ void operator()(int64_t i) const {
    const float g = gate[i], s = sigmoid(g), grad = dy[i];
    dgate[i] = from_float<T>(grad * up[i] * s * (1.0f + g * (1.0f - s)));
    dup[i] = from_float<T>(grad * g * s);
  }
  bool operator==(const SiluMulBackward&) const = default;
};

struct Add {
  float* out;
  const float* x;
  __device__ __forceinline__ void operator()(int64_t i) const { out[i] += x[i]; }
  bool operator==(const Add&) const = default;
};

struct AddBias {
  float* y;
  const float* bias;
  int cols;
  __device__ __forceinline__ void operator()(int64_t i) const { y[i] += bias[i % cols]; }
  bool operator==(const AddBias&) const = default;
};

template <class T>
struct Scale {
  T* out;
  const float* x;
  float factor;
  __device__ __forceinline__ void operator()(int64_t i) const {
    out[i] = from_float<T>(factor * x[i]);
  }
  bool operator==(const Scale&) const = default;
};

template <class T>
struct EmbedRows {
  float* out;
  const T* table;
  const int32_t* ids;
  int width;
  __device__ __forceinline__ void operator()(int64_t i) const {
    out[i] = to_float(table[int64_t{ids[i / width]} * width + i % width]);
  }
  bool operator==(const EmbedRows&) const = default;
};

// Of the i-th pair of channels: (2j, 2j + 1) or (j, j + head_dim / 2) of its head.
struct Rotate {
  RotateArgs a;
  __device__ __forceinline__ void operator()(int64_t i) const {
    const int half = a.head_dim / 2, j = static_cast<int>(i % half);
    const int64_t head = i / half, row = head / (a.cols / a.head_dim);
    float* x = a.x + head * a.head_dim;
    float& first = x[a.interleaved ? 2 * j : j];
    float& second = x[a.interleaved ? 2 * j + 1 : j + half];
    const int64_t angle = int64_t{a.positions[row]} * half + j;
    const float cos = a.cos[angle], sin = a.turn * a.sin[angle];
    const float turned = first * cos - second * sin;
    second = second * cos + first * sin;
    first = turned;
  }
  bool operator==(const Rotate&) const = default;
};

template <class Body>
__global__ void __launch_bounds__(kThreads) elements_kernel(int64_t count, Body body) {
  const int64_t first = int64_t{blockIdx.x} * (kThreads * kEach) + threadIdx.x;
  for (int e = 0; e < kEach; ++e) {
    const int64_t i = first + e * kThreads;
    if (i < count) body(i);
  }
}

template <class Body>
void each(const Stream& stream, int64_t count, const Body& body) {
  constexpr int64_t kBlock = kThreads * kEach;
  const dim3 grid(static_cast<unsigned>((count + kBlock - 1) / kBlock));
  launch(stream, grid, kThreads, 0, elements_kernel<Body>, count, body);
}

}  // namespace

void rotate(const Stream& stream, const RotateArgs& a, int64_t rows) {
  each(stream, rows * (a.cols / 2), Rotate{a});
}

void silu_mul(const Stream& stream, Element element, void* out, const float* gate, const float* up,
              int64_t count) {
  if (element == Element::f32) {
    return each(stream, count, SiluMul<float>{static_cast<float*>(out), gate, up});
  }
  each(stream, count, SiluMul<bf16>{static_cast<bf16*>(out), gate, up});
}

void silu_mul_backward(const Stream& stream, Element element, void* dgate, void* dup,
                       const float* dy, const float* gate, const float* up, int64_t count) {
  if (element == Element::f32) {
    return each(
        stream, count,
        SiluMulBackward<float>{static_cast<float*>(dgate), static_cast<float*>(dup), dy, gate, up});
  }
  each(stream, count,
       SiluMulBackward<bf16>{static_cast<bf16*>(dgate), static_cast<bf16*>(dup), dy, gate, up});
}

void add(const Stream& stream, float* out, const float* x, int64_t count) {
  each(stream, count, Add{out, x});
}

void add_bias(const Stream& stream, float* y, const float* bias, int cols, int64_t count) {
  each(stream, count, AddBias{y, bias, cols});
}

void scale(const Stream& stream, Element element, void* out, const float* x, float factor,
           int64_t count) {
  if (element == Element::f32) {
    return each(stream, count, Scale<float>{static_cast<float*>(out), x, factor});
  }
  each(stream, count, Scale<bf16>{static_cast<bf16*>(out), x, factor});
}

void embed_rows(const Stream& stream, Element element, float* out, const void* table,
                const int32_t* ids, int width, int64_t rows) {
  if (element == Element::f32) {
    return each(stream, rows * width,
                EmbedRows<float>{out, static_cast<const float*>(table), ids, width});
  }
  each(stream, rows * width, EmbedRows<bf16>{out, static_cast<const bf16*>(table), ids, width});
}

}  // namespace medusa::cuda
