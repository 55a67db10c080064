#include "backend/cuda/cuda_train_backend.h"

#include <algorithm>
#include <cstring>

#include "backend/cuda/choose_device.h"
#include "backend/cuda/train_kernels.h"
#include "base/check.h"

namespace medusa {
namespace cuda {
namespace {

constexpr int64_t kPieceBytes = int64_t{1} << 24;  // of the host's rows on their way

static_assert(sizeof(RowScore) == sizeof(TargetScore));

Element element_of(DType dtype) { return dtype == DType::f32 ? Element::f32 : Element::bf16; }

}  // namespace

CudaTrainBackend::CudaTrainBackend(ComputeType type, int device)
    : dtype_(type == ComputeType::bfloat16 ? DType::bf16 : DType::f32),
      device_(device),
      queue_(nullptr) {}

std::string CudaTrainBackend::name() const { return device_name(device_); }

Buffer CudaTrainBackend::allocate(size_t bytes) {
  use_device(device_);
  return managed_memory(std::max<size_t>(bytes, 64));
}

void CudaTrainBackend::wait() { arrivals_.finish(stream()); }

Panels CudaTrainBackend::allocate_panels(int64_t inner, int64_t columns) {
  Panels b{.storage = {}, .inner = inner, .columns = columns};
  b.storage = allocate(static_cast<size_t>(inner * stride(b)) * block_bytes(dtype_));
  return b;
}

void CudaTrainBackend::zero(Tensor x) { stream().clear(x.data, x.bytes()); }

void CudaTrainBackend::load_rows(Tensor out, int64_t first_column, const HostTensor& from,
                                 std::span<const int64_t> rows) {
  const auto row_bytes = from.shape[1] * static_cast<int64_t>(block_bytes(from.dtype));
  const int64_t most = std::max<int64_t>(kPieceBytes / row_bytes, 1);
  const auto count = static_cast<int64_t>(rows.size());
  int64_t first = 0;
  for (; count - first > most; first += most) {
    load_piece(out.slice(first, most), first_column, from,
               rows.subspan(static_cast<size_t>(first), static_cast<size_t>(most)));
  }
  load_piece(out.slice(first, out.rows - first), first_column, from,
             rows.subspan(static_cast<size_t>(first)));
}

void CudaTrainBackend::load_piece(Tensor out, int64_t first_column, const HostTensor& from,
                                  std::span<const int64_t> rows) {
  const size_t row_bytes = static_cast<size_t>(from.shape[1]) * block_bytes(from.dtype);
  rows_.resize(rows.size() * row_bytes);
  for (size_t i = 0; i < rows.size(); ++i) {
    const auto row = static_cast<size_t>(rows[i]);
    std::memcpy(rows_.data() + i * row_bytes, static_cast<const char*>(from.data) + row * row_bytes,
                row_bytes);
  }
  Queue& queue = bound();
  char* on_device = queue.scratch.reserve<char>(queue.stream, static_cast<int64_t>(rows_.size()));
  if (!rows_.empty()) queue.upload(on_device, rows_.data(), rows_.size());
  const int64_t offset = first_column * static_cast<int64_t>(block_bytes(dtype_));
  place_rows(queue.stream, element(), element_of(from.dtype),
             {out.row<char>(0) + offset, on_device, out.rows, static_cast<int64_t>(rows.size()),
              from.shape[1], out.cols});
}

void CudaTrainBackend::add_columns(Tensor out, Tensor x) {
  cuda::add_columns(stream(), {out.row<float>(0), x.row<float>(0), out.rows, out.cols, x.cols});
}

void CudaTrainBackend::pack_transposed(Panels& b, Tensor w) {
  cuda::transpose(stream(), element(),
                  {b.storage.data(), w.data, w.rows, w.cols, stride(b), w.cols});
}

void CudaTrainBackend::pack(Panels& b, Tensor x) {
  stream().copy_on_device(b.storage.data(), x.data, x.bytes());
}

void CudaTrainBackend::transpose(Tensor out, Tensor x) {
  cuda::transpose(stream(), element(), {out.data, x.data, x.rows, x.cols, out.cols, x.cols});
}

void CudaTrainBackend::narrow(Tensor out, Tensor x) {
  if (dtype_ == DType::f32) return stream().copy_on_device(out.data, x.data, x.bytes());
  cuda::narrow(stream(), out.data, x.row<float>(0), x.rows * x.cols);
}

void CudaTrainBackend::gemm(Tensor c, Tensor a, const Panels& b, bool accumulate) {
  cuda::gemm(stream(), element(), GemmForm::plain,
             {.c = c.row<float>(0),
              .a = a.data,
              .b = b.storage.data(),
              .rows = a.rows,
              .columns = stride(b),
              .inner = b.inner,
              .a_stride = a.cols,
              .b_stride = stride(b),
              .c_stride = c.cols,
              .c_columns = stride(b),
              .accumulate = accumulate});
}

void CudaTrainBackend::residual_silu(Tensor out, Tensor x, Tensor z, const float* bias) {
  cuda::residual_silu(stream(), element(),
                      {out.data, x.data, z.row<float>(0), bias, z.rows, z.cols, x.cols});
}

void CudaTrainBackend::silu_backward(Tensor dz, float* dbias, Tensor dh, Tensor z) {
  cuda::silu_backward(stream(), element(),
                      {dz.data, dbias, dh.row<float>(0), z.row<float>(0), z.rows, z.cols});
}

void CudaTrainBackend::cross_entropy(Tensor grad, std::span<TargetScore> scores, Tensor logits,
                                     int64_t vocab, std::span<const int32_t> targets, float scale) {
  Queue& queue = bound();
  auto* results = queue.results.reserve<RowScore>(queue.stream, logits.rows);
  cuda::cross_entropy(queue.stream, element(),
                      {.grad = grad.data,
                       .scores = results,
                       .logits = logits.row<float>(0),
                       .targets = targets_.of(queue, targets),
                       .rows = logits.rows,
                       .vocab = vocab,
                       .stride = logits.cols,
                       .scale = scale});
  arrivals_.expect(queue.stream, scores.data(), results,
                   static_cast<size_t>(logits.rows) * sizeof(RowScore));
}

double CudaTrainBackend::squared_norm(std::span<const float> x) {
  Queue& queue = bound();
  const auto count = static_cast<int64_t>(x.size());
  auto* parts = queue.scratch.reserve<double>(queue.stream, squared_norm_parts(count));
  auto* sum = queue.results.reserve<double>(queue.stream, 1);
  cuda::squared_norm(queue.stream, sum, parts, x.data(), count);
  return *static_cast<const double*>(queue.fetch(sum, sizeof(double)));
}

void CudaTrainBackend::adamw(std::span<float> weights, std::span<const float> grads,
                             std::span<float> mean, std::span<float> square, const AdamW& options) {
  cuda::adamw(stream(), {weights.data(), grads.data(), mean.data(), square.data(),
                         static_cast<int64_t>(weights.size()), adam_step(options)});
}

}  // namespace cuda

std::shared_ptr<TrainBackend> make_cuda_train_backend(ComputeType compute_type, int device) {
  return make_cuda_backbone_train_backend(compute_type, device);
}

std::shared_ptr<BackboneTrainBackend> make_cuda_backbone_train_backend(ComputeType compute_type,
                                                                       int device) {
  cuda::choose_device(device);
  return std::make_shared<cuda::CudaTrainBackend>(compute_type, device);
}

}  // namespace medusa
