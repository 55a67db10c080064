// Rows copied as they are: picked ones of a matrix, and accepted ones into the cache.
#include "backend/cuda/device/memory.cuh"
#include "backend/cuda/device/threads.cuh"
#include "backend/cuda/kernels.h"
#include "backend/cuda/launch.h"

namespace medusa::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kPage = 64;

// `unit` bytes at a time: 16, or 2 where rows do not start at multiples of 16.
__global__ void gather_rows_kernel(char* out, const char* x, const int32_t* rows, int64_t row_bytes,
                                   int unit) {
  char* to = out + blockIdx.x * row_bytes;
  const char* from = x + rows[blockIdx.x] * row_bytes;
  for (int64_t i = int64_t{threadIdx.x} * unit; i < row_bytes; i += kThreads * unit) {
    if (unit == 16) {
      store_16(to + i, load_16(from + i));
    } else {
      *reinterpret_cast<uint16_t*>(to + i) = *reinterpret_cast<const uint16_t*>(from + i);
    }
  }
}

// Block (row, layer). A page's tile holds 64 keys, or values, of one head one after another.
__global__ void commit_kernel(CommitArgs a) {
  const CommitTarget target = a.rows[blockIdx.x];
  if (a.kept != nullptr && a.kept[target.row] == 0) return;
  const int64_t layer = blockIdx.y, row_bytes = int64_t{a.head_bytes} * a.num_kv_heads;
  const int64_t from = (layer * a.layer_rows + target.row) * row_bytes;
  const int64_t page = (layer * a.num_pages + target.page) * a.num_kv_heads;
  const int slot = target.position % kPage;
  for (int64_t i = int64_t{threadIdx.x} * 16; i < row_bytes; i += kThreads * 16) {
    const int64_t head = i / a.head_bytes;
    const int64_t to = ((page + head) * kPage + slot) * a.head_bytes + i % a.head_bytes;
    store_16(static_cast<char*>(a.key_pages) + to,
             load_16(static_cast<const char*>(a.keys) + from + i));
    store_16(static_cast<char*>(a.value_pages) + to,
             load_16(static_cast<const char*>(a.values) + from + i));
  }
}

}  // namespace

void gather_rows(const Stream& stream, void* out, const void* x, const int32_t* rows, int count,
                 size_t row_bytes) {
  const int unit = row_bytes % 16 == 0 ? 16 : 2;
  launch(stream, dim3(static_cast<unsigned>(count)), kThreads, 0, gather_rows_kernel,
         static_cast<char*>(out), static_cast<const char*>(x), rows,
         static_cast<int64_t>(row_bytes), unit);
}

void commit(const Stream& stream, const CommitArgs& a) {
  const dim3 grid(static_cast<unsigned>(a.num_rows), static_cast<unsigned>(a.num_layers));
  launch(stream, grid, kThreads, 0, commit_kernel, a);
}

}  // namespace medusa::cuda
