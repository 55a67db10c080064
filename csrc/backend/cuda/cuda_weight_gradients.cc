#include "backend/cuda/backbone_kernels.h"
#include "backend/cuda/cuda_train_backend.h"

namespace medusa::cuda {

void CudaTrainBackend::embed_backward(Tensor dtable, Tensor dx, int64_t first_column,
                                      std::span<const int32_t> ids) {
  Queue& queue = bound();
  cuda::embed_backward(queue.stream, {.dtable = dtable.row<float>(0),
                                      .dx = dx.row<float>(0) + first_column,
                                      .ids = indices_.of(queue, ids),
                                      .rows = static_cast<int64_t>(ids.size()),
                                      .cols = dtable.cols,
                                      .dx_stride = dx.cols});
}

void CudaTrainBackend::rms_norm_weight(float* dweight, Tensor dy, Tensor x, float eps) {
  Queue& queue = bound();
  cuda::rms_norm_weight(queue.stream,
                        {.dweight = dweight,
                         .dy = dy.row<float>(0),
                         .x = x.row<float>(0),
                         .factors = queue.scratch.reserve<float>(queue.stream, x.rows),
                         .rows = x.rows,
                         .cols = x.cols,
                         .eps = eps});
}

void CudaTrainBackend::column_sums(float* sums, Tensor x) {
  cuda::column_sums(stream(), element(), sums, x.data, x.rows, x.cols);
}

}  // namespace medusa::cuda
