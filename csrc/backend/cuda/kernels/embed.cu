// Rows of a packed matrix, widened: a block a row.
#include "backend/cuda/device/element.cuh"
#include "backend/cuda/device/threads.cuh"
#include "backend/cuda/kernels.h"
#include "backend/cuda/launch.h"
#include "backend/cuda/packing.h"

namespace medusa::cuda {
namespace {

constexpr int kThreads = 128;

__device__ float element_at(const float* table, int64_t n, int64_t k, int64_t width) {
  return table[packed_index_32(n, k, width)];
}
template <class T>
__device__ float element_at(const T* table, int64_t n, int64_t k, int64_t width) {
  return to_float(table[packed_index_16(n, k, width)]);
}

template <class T>
__global__ void embed_kernel(EmbedArgs a, float* out) {
  const auto* table = static_cast<const T*>(a.table);
  const int64_t row = blockIdx.x, id = a.ids[row];
  for (int k = threadIdx.x; k < a.width; k += kThreads) {
    out[row * a.width + k] = element_at(table, id, k, a.width);
  }
}

template <class T>
__global__ void append_embedding_kernel(EmbedArgs a, const T* x, int x_width, T* out) {
  const auto* table = static_cast<const T*>(a.table);
  const int64_t row = blockIdx.x, id = a.ids[row];
  T* to = out + row * (x_width + a.width);
  for (int k = threadIdx.x; k < x_width; k += kThreads) to[k] = x[row * x_width + k];
  for (int k = threadIdx.x; k < a.width; k += kThreads) {
    to[x_width + k] = from_float<T>(element_at(table, id, k, a.width));
  }
}

template <class T>
void launch_append(const Stream& stream, const EmbedArgs& a, const void* x, int x_width,
                   void* out) {
  launch(stream, dim3(static_cast<unsigned>(a.rows)), kThreads, 0, append_embedding_kernel<T>, a,
         static_cast<const T*>(x), x_width, static_cast<T*>(out));
}

}  // namespace

void embed(const Stream& stream, Element element, const EmbedArgs& a, float* out) {
  const dim3 grid(static_cast<unsigned>(a.rows));
  switch (element) {
    case Element::f32:
      return launch(stream, grid, kThreads, 0, embed_kernel<float>, a, out);
    case Element::bf16:
      return launch(stream, grid, kThreads, 0, embed_kernel<bf16>, a, out);
  }
}

void append_embedding(const Stream& stream, Element element, const EmbedArgs& a, const void* x,
                      int x_width, void* out) {
  switch (element) {
    case Element::f32:
      return launch_append<float>(stream, a, x, x_width, out);
    case Element::bf16:
      return launch_append<bf16>(stream, a, x, x_width, out);
  }
}

}  // namespace medusa::cuda
