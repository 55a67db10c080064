// Rows that are picked out of a matrix, or put back.
#include "backend/cuda/backbone_kernels.h"
#include "backend/cuda/device/memory.cuh"
#include "backend/cuda/device/threads.cuh"
#include "backend/cuda/launch.h"

namespace medusa::cuda {
namespace {

constexpr int kThreads = 128;

// A block a row of `out`.
__global__ void __launch_bounds__(kThreads) gather_columns_kernel(GatherColumnsArgs a) {
  const int64_t row = blockIdx.x;
  char* to = static_cast<char*>(a.out) + row * a.out_stride;
  const bool there = row < a.count;
  const char* from = static_cast<const char*>(a.x) + (there ? a.rows[row] : 0) * a.row_bytes;
  for (int64_t i = int64_t{threadIdx.x} * 16; i < a.row_bytes; i += kThreads * 16) {
    store_16(to + i, there ? load_16(from + i) : uint4{});
  }
}

__global__ void __launch_bounds__(kThreads) scatter_rows_kernel(ScatterRowsArgs a) {
  const float* from = a.x + int64_t{blockIdx.x} * a.cols;
  float* to = a.out + int64_t{a.rows[blockIdx.x]} * a.cols;
  for (int i = threadIdx.x; i < a.cols; i += kThreads) {
    to[i] = a.accumulate ? to[i] + from[i] : from[i];
  }
}

}  // namespace

void gather_columns(const Stream& stream, const GatherColumnsArgs& a, int64_t out_rows) {
  if (out_rows == 0) return;
  launch(stream, dim3(static_cast<unsigned>(out_rows)), kThreads, 0, gather_columns_kernel, a);
}

void scatter_rows(const Stream& stream, const ScatterRowsArgs& a, int64_t count) {
  if (count == 0) return;
  launch(stream, dim3(static_cast<unsigned>(count)), kThreads, 0, scatter_rows_kernel, a);
}

}  // namespace medusa::cuda
