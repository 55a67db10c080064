// Splits a packed qkv product, normalises heads (Qwen3) and rotates them: a warp a head of a row.
#include "backend/cuda/device/dependency.cuh"
#include "backend/cuda/device/element.cuh"
#include "backend/cuda/device/reduce.cuh"
#include "backend/cuda/kernels.h"
#include "backend/cuda/launch.h"

namespace medusa::cuda {
namespace {

constexpr int kWarps = 4;

// 1 / sqrt(mean(x²) + eps) over one head, in every lane.
__device__ float inverse_rms(const float* x, int head_dim, float eps) {
  float squares = 0.0f;
  for (int i = lane(); i < head_dim; i += kWarp) squares = fmaf(x[i], x[i], squares);
  return 1.0f / sqrtf(sum_warp(squares) / static_cast<float>(head_dim) + eps);
}

// One head, turned by the angles of its row's position. `norm` may be null.
template <class Out>
__device__ void turn_head(Out* out, const float* x, const float* norm, const RopeArgs& a, int row) {
  const int half = a.head_dim / 2;
  const int64_t angles = int64_t{a.positions[row]} * half;
  const float scale = norm != nullptr ? inverse_rms(x, a.head_dim, a.norm_eps) : 1.0f;
  for (int i = lane(); i < half; i += kWarp) {
    const int first = a.interleaved ? 2 * i : i, second = a.interleaved ? 2 * i + 1 : i + half;
    float low = x[first], high = x[second];
    if (norm != nullptr) {
      low = low * scale * norm[first];
      high = high * scale * norm[second];
    }
    const float cos = a.cos[angles + i], sin = a.sin[angles + i];
    out[first] = from_float<Out>(low * cos - high * sin);
    out[second] = from_float<Out>(high * cos + low * sin);
  }
}

template <class T>
__global__ void rope_kernel(RopeArgs a) {
  follow_earlier_kernels();
  const int heads = a.num_heads + 2 * a.num_kv_heads, d = a.head_dim;
  const int64_t row = blockIdx.x;
  int head = static_cast<int>(blockIdx.y) * kWarps + warp();
  if (head >= heads) return;
  const float* x = a.qkv + (row * heads + head) * d;
  if (head < a.num_heads) {
    return turn_head(a.q + (row * a.num_heads + head) * d, x, a.q_norm, a, blockIdx.x);
  }
  head -= a.num_heads;
  if (head < a.num_kv_heads) {
    T* key = static_cast<T*>(a.keys) + (row * a.num_kv_heads + head) * d;
    return turn_head(key, x, a.k_norm, a, blockIdx.x);
  }
  head -= a.num_kv_heads;
  T* value = static_cast<T*>(a.values) + (row * a.num_kv_heads + head) * d;
  for (int i = lane(); i < d; i += kWarp) value[i] = from_float<T>(x[i]);
}

}  // namespace

void rope(const Stream& stream, Element element, const RopeArgs& a) {
  const int heads = a.num_heads + 2 * a.num_kv_heads;
  const dim3 grid(static_cast<unsigned>(a.rows),
                  static_cast<unsigned>((heads + kWarps - 1) / kWarps));
  switch (element) {
    case Element::f32:
      return launch_early(stream, grid, kWarps * kWarp, 0, rope_kernel<float>, a);
    case Element::bf16:
      return launch_early(stream, grid, kWarps * kWarp, 0, rope_kernel<bf16>, a);
    case Element::f16:
      return launch_early(stream, grid, kWarps * kWarp, 0, rope_kernel<f16>, a);
  }
}

}  // namespace medusa::cuda
