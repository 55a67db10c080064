#include "backend/cpu/cpu_train_backend.h"
#include "tensor/quants.h"

namespace medusa::cpu {
namespace {

constexpr int64_t kColumns = 64;  // of one task, which adds all rows to them in order
constexpr int64_t kRows = 128;    // that add up by themselves before their sum is added

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace

void CpuTrainBackend::embed_backward(Tensor dtable, Tensor dx, int64_t first_column,
                                     std::span<const int32_t> ids) {
  parallel(ceil_div(dtable.cols, kColumns), [&](int64_t task) {
    const int64_t at = task * kColumns, count = std::min(kColumns, dtable.cols - at);
    for (size_t r = 0; r < ids.size(); ++r) {
      const float* from = dx.row<float>(static_cast<int64_t>(r)) + first_column;
      kernels_.add[kF32](dtable.row<float>(ids[r]) + at, from + at, count);
    }
  });
}

void CpuTrainBackend::rms_norm_weight(float* dweight, Tensor dy, Tensor x, float eps) {
  const int64_t blocks = ceil_div(x.rows, kRows);
  const Buffer sums = allocate(static_cast<size_t>(blocks * x.cols) * sizeof(float));
  auto* parts = static_cast<float*>(sums.data());
  parallel(blocks, [&](int64_t block) {
    for (int64_t r = block * kRows; r < std::min(x.rows, (block + 1) * kRows); ++r) {
      kernels_.rms_norm_weight(parts + block * x.cols, dy.row<float>(r), x.row<float>(r), x.cols,
                               eps);
    }
  });
  for (int64_t block = 0; block < blocks; ++block) {
    kernels_.add[kF32](dweight, parts + block * x.cols, x.cols);
  }
}

void CpuTrainBackend::column_sums(float* sums, Tensor x) {
  const auto size = static_cast<int64_t>(block_bytes(dtype_));
  parallel(ceil_div(x.cols, kColumns), [&](int64_t task) {
    const int64_t at = task * kColumns, count = std::min(kColumns, x.cols - at);
    for (int64_t r = 0; r < x.rows; ++r) {
      kernels_.add[type_](sums + at, x.row<char>(r) + at * size, count);
    }
  });
}

}  // namespace medusa::cpu
