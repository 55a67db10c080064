// Rows that training moves: from the host's matrices, between f32 and C, transposed.
#include "backend/cuda/device/element.cuh"
#include "backend/cuda/device/shared.cuh"
#include "backend/cuda/device/threads.cuh"
#include "backend/cuda/launch.h"
#include "backend/cuda/train_kernels.h"

namespace medusa::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kTile = 32;  // rows and columns that a block transposes

// Grid: rows.
template <class T, class In>
__global__ void place_rows_kernel(PlaceRowsArgs a) {
  const int64_t row = blockIdx.x;
  T* out = static_cast<T*>(a.out) + row * a.out_stride;
  const In* in = static_cast<const In*>(a.in) + row * a.columns;
  for (int64_t i = threadIdx.x; i < a.columns; i += kThreads) {
    out[i] = from_float<T>(row < a.in_rows ? to_float(in[i]) : 0.0f);
  }
}

__global__ void add_columns_kernel(AddColumnsArgs a) {
  const int64_t row = blockIdx.x;
  for (int64_t i = threadIdx.x; i < a.columns; i += kThreads) {
    a.out[row * a.columns + i] += a.x[row * a.x_stride + i];
  }
}

__global__ void narrow_kernel(bf16* out, const float* x, int64_t count) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i < count) out[i] = from_float<bf16>(x[i]);
}

// Grid: tiles of columns, tiles of rows. Both sides are read and written along their rows.
template <class T>
__global__ void transpose_kernel(TransposeArgs a) {
  MEDUSA_SHARED(T, tile, kTile * (kTile + 1));
  const int64_t first_row = int64_t{blockIdx.y} * kTile, first_column = int64_t{blockIdx.x} * kTile;
  constexpr int kWarps = kThreads / kWarp;
  for (int r = warp(); r < kTile; r += kWarps) {
    const int64_t row = first_row + r, column = first_column + lane();
    if (row < a.rows && column < a.columns) {
      tile[r * (kTile + 1) + lane()] = static_cast<const T*>(a.x)[row * a.x_stride + column];
    }
  }
  sync_block();
  for (int c = warp(); c < kTile; c += kWarps) {
    const int64_t row = first_row + lane(), column = first_column + c;
    if (row < a.rows && column < a.columns) {
      static_cast<T*>(a.out)[column * a.out_stride + row] = tile[lane() * (kTile + 1) + c];
    }
  }
}

template <class T>
void place(const Stream& stream, Element in, const PlaceRowsArgs& a) {
  const dim3 grid(static_cast<unsigned>(a.rows));
  if (in == Element::f32) return launch(stream, grid, kThreads, 0, place_rows_kernel<T, float>, a);
  launch(stream, grid, kThreads, 0, place_rows_kernel<T, bf16>, a);
}

}  // namespace

void place_rows(const Stream& stream, Element element, Element in, const PlaceRowsArgs& a) {
  if (element == Element::f32) return place<float>(stream, in, a);
  place<bf16>(stream, in, a);
}

void add_columns(const Stream& stream, const AddColumnsArgs& a) {
  launch(stream, dim3(static_cast<unsigned>(a.rows)), kThreads, 0, add_columns_kernel, a);
}

void narrow(const Stream& stream, void* out, const float* x, int64_t count) {
  const dim3 grid(static_cast<unsigned>((count + kThreads - 1) / kThreads));
  launch(stream, grid, kThreads, 0, narrow_kernel, static_cast<bf16*>(out), x, count);
}

void transpose(const Stream& stream, Element element, const TransposeArgs& a) {
  const dim3 grid(static_cast<unsigned>((a.columns + kTile - 1) / kTile),
                  static_cast<unsigned>((a.rows + kTile - 1) / kTile));
  if (element == Element::f32) return launch(stream, grid, kThreads, 0, transpose_kernel<float>, a);
  launch(stream, grid, kThreads, 0, transpose_kernel<bf16>, a);
}

}  // namespace medusa::cuda
