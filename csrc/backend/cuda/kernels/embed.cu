// Rows of a packed matrix, widened: a block a row.
#include "backend/cuda/device/element.cuh"
#include "backend/cuda/device/float8.cuh"
#include "backend/cuda/device/threads.cuh"
#include "backend/cuda/kernels.h"
#include "backend/cuda/launch.h"
#include "backend/cuda/packing.h"

namespace medusa::cuda {
namespace {

constexpr int kThreads = 128;

// Element (n, k) of a packed table, by its format.
template <Format kFormat>
__device__ float element_at(const PackedWeight& table, int64_t n, int64_t k, int64_t width) {
  if constexpr (kFormat == Format::f32) {
    return static_cast<const float*>(table.codes)[packed_index_32(n, k, width)];
  } else if constexpr (kFormat == Format::f16) {
    return to_float(static_cast<const f16*>(table.codes)[packed_index_16(n, k, width)]);
  } else if constexpr (kFormat == Format::bf16) {
    return to_float(static_cast<const bf16*>(table.codes)[packed_index_16(n, k, width)]);
  } else if constexpr (kFormat == Format::f8_e4m3) {  // rounded as products round
    const float scale = static_cast<const float*>(table.scales)[packed_scale_index(n, k, width)];
    const uint8_t code = static_cast<const uint8_t*>(table.codes)[packed_index_8(n, k, width)];
    return to_float(from_float<bf16>(float8_to_float(code) * scale));
  } else {
    const auto* codes = static_cast<const uint8_t*>(table.codes);
    const int64_t factor = packed_factor_index(n, k, width), nibble = packed_index_4(n, k, width);
    const float scale = to_float(static_cast<const f16*>(table.scales)[factor]);
    if constexpr (kFormat == Format::q8_0) {
      return static_cast<float>(codes[packed_index_8(n, k, width)] - 128) * scale;
    }
    const int code = codes[nibble / 2] >> (nibble % 2 * 4) & 15;
    if constexpr (kFormat == Format::q4_0) return static_cast<float>(code - 8) * scale;
    const float minimum = to_float(static_cast<const f16*>(table.minimums)[factor]);
    return static_cast<float>(code) * scale + minimum;
  }
}

template <Format kFormat>
__global__ void embed_kernel(EmbedArgs a, float* out) {
  const int64_t row = blockIdx.x, id = a.ids[row];
  for (int k = threadIdx.x; k < a.width; k += kThreads) {
    out[row * a.width + k] = element_at<kFormat>(a.table, id, k, a.width);
  }
}

template <Format kFormat, class T>
__global__ void append_embedding_kernel(EmbedArgs a, const T* x, int x_width, T* out) {
  const int64_t row = blockIdx.x, id = a.ids[row];
  T* to = out + row * (x_width + a.width);
  for (int k = threadIdx.x; k < x_width; k += kThreads) to[k] = x[row * x_width + k];
  for (int k = threadIdx.x; k < a.width; k += kThreads) {
    to[x_width + k] = from_float<T>(element_at<kFormat>(a.table, id, k, a.width));
  }
}

template <Format kFormat, class T>
void launch_append(const Stream& stream, const EmbedArgs& a, const void* x, int x_width,
                   void* out) {
  launch(stream, dim3(static_cast<unsigned>(a.rows)), kThreads, 0,
         append_embedding_kernel<kFormat, T>, a, static_cast<const T*>(x), x_width,
         static_cast<T*>(out));
}

}  // namespace

void embed(const Stream& stream, Format format, const EmbedArgs& a, float* out) {
  const dim3 grid(static_cast<unsigned>(a.rows));
  switch (format) {
    case Format::f32:
      return launch(stream, grid, kThreads, 0, embed_kernel<Format::f32>, a, out);
    case Format::bf16:
      return launch(stream, grid, kThreads, 0, embed_kernel<Format::bf16>, a, out);
    case Format::f16:
      return launch(stream, grid, kThreads, 0, embed_kernel<Format::f16>, a, out);
    case Format::q8_0:
      return launch(stream, grid, kThreads, 0, embed_kernel<Format::q8_0>, a, out);
    case Format::q4_0:
      return launch(stream, grid, kThreads, 0, embed_kernel<Format::q4_0>, a, out);
    case Format::q4_1:
      return launch(stream, grid, kThreads, 0, embed_kernel<Format::q4_1>, a, out);
    case Format::f8_e4m3:
      return launch(stream, grid, kThreads, 0, embed_kernel<Format::f8_e4m3>, a, out);
  }
}

void append_embedding(const Stream& stream, Format format, const EmbedArgs& a, const void* x,
                      int x_width, void* out) {
  switch (format) {
    case Format::f32:
      return launch_append<Format::f32, float>(stream, a, x, x_width, out);
    case Format::bf16:
      return launch_append<Format::bf16, bf16>(stream, a, x, x_width, out);
    case Format::f16:
      return launch_append<Format::f16, f16>(stream, a, x, x_width, out);
    case Format::q8_0:
      return launch_append<Format::q8_0, bf16>(stream, a, x, x_width, out);
    case Format::q4_0:
      return launch_append<Format::q4_0, bf16>(stream, a, x, x_width, out);
    case Format::q4_1:
      return launch_append<Format::q4_1, bf16>(stream, a, x, x_width, out);
    case Format::f8_e4m3:
      return launch_append<Format::f8_e4m3, bf16>(stream, a, x, x_width, out);
  }
}

}  // namespace medusa::cuda
