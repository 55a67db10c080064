#include <cmath>

#include "backend/cuda/backbone_kernels.h"
#include "backend/cuda/cuda_train_backend.h"
#include "backend/cuda/train_kernels.h"
#include "tensor/quants.h"

namespace medusa::cuda {
namespace {

constexpr int64_t kPieceElements = int64_t{1} << 22;  // of a weight on its way
constexpr int64_t kPaddedRows = 32;

Element element_of(DType dtype) { return dtype == DType::f32 ? Element::f32 : Element::bf16; }
int64_t elements(Tensor x) { return x.rows * x.cols; }

DropoutArgs dropout_args(const Dropout& noise, Tensor x) {
  return {.seed = noise.seed,
          .step = noise.step,
          .site = noise.site,
          .first_row = noise.first_row,
          .threshold = static_cast<uint32_t>(std::lround(noise.probability * 65536)),
          .factor = 1 / (1 - noise.probability),
          .cols = static_cast<int>(x.cols)};
}

std::vector<DocumentTile> tiles_of(const Documents& documents) {
  std::vector<DocumentTile> tiles;
  for (size_t i = 0; i + 1 < documents.starts.size(); ++i) {
    const int32_t first = documents.starts[i], length = documents.starts[i + 1] - first;
    for (int32_t at = 0; at < length; at += kDocumentTile) tiles.push_back({first, length, at});
  }
  return tiles;
}

TrainAttentionArgs attention_args(Tensor q, Tensor k, Tensor v, const AttentionShape& shape) {
  return {.q = q.row<float>(0),
          .k = k.row<float>(0),
          .v = v.row<float>(0),
          .tiles = nullptr,
          .num_tiles = 0,
          .num_heads = shape.num_heads,
          .num_kv_heads = shape.num_kv_heads,
          .head_dim = shape.head_dim,
          .window = shape.sliding_window,
          .scale = shape.scale};
}

}  // namespace

// Row-major in C, with rows of zeros up to a multiple of 32. Blocks are widened on the way.
FrozenMatrix CudaTrainBackend::hold(const FrozenMatrix& w) {
  const int64_t padded = (w.out_features + kPaddedRows - 1) / kPaddedRows * kPaddedRows;
  const size_t row_bytes = static_cast<size_t>(w.in_features) * block_bytes(dtype_);
  Queue& queue = bound();
  const Buffer& to = held_.emplace_back(device_memory(static_cast<size_t>(padded) * row_bytes));
  const int64_t most = std::max<int64_t>(kPieceElements / w.in_features, 1);
  for (int64_t row = 0; row < w.out_features; row += most) {
    const int64_t rows = std::min(most, w.out_features - row);
    hold_rows(queue, static_cast<char*>(to.data()) + static_cast<size_t>(row) * row_bytes, w, row,
              rows);
  }
  return {to.data(), dtype_, w.out_features, w.in_features};
}

void CudaTrainBackend::hold_rows(Queue& queue, void* to, const FrozenMatrix& w, int64_t row,
                                 int64_t rows) {
  const size_t stored_bytes =
      static_cast<size_t>(w.in_features / block_elements(w.dtype)) * block_bytes(w.dtype);
  const char* from = static_cast<const char*>(w.data) + static_cast<size_t>(row) * stored_bytes;
  const int64_t count = rows * w.in_features;
  if (w.dtype == dtype_) return queue.upload(to, from, static_cast<size_t>(rows) * stored_bytes);
  widened_.resize(static_cast<size_t>(count));
  packers_.run([&](int thread) {
    for (int64_t r = thread; r < rows; r += packers_.num_threads()) {
      dequantize(widened_.data() + r * w.in_features, from + static_cast<size_t>(r) * stored_bytes,
                 w.dtype, w.in_features);
    }
  });
  const size_t bytes = static_cast<size_t>(count) * sizeof(float);
  if (dtype_ == DType::f32) return queue.upload(to, widened_.data(), bytes);
  float* wide = queue.scratch.reserve<float>(queue.stream, count);
  queue.upload(wide, widened_.data(), bytes);
  cuda::narrow(queue.stream, to, wide, count);
}

void CudaTrainBackend::embed(Tensor out, const FrozenMatrix& table, std::span<const int32_t> ids) {
  Queue& queue = bound();
  embed_rows(queue.stream, element_of(table.dtype), out.row<float>(0), table.data,
             indices_.of(queue, ids), static_cast<int>(out.cols), out.rows);
}

void CudaTrainBackend::linear(Tensor y, Tensor x, const FrozenMatrix& w, bool accumulate) {
  cuda::gemm(stream(), element(), GemmForm::turned_b,
             {.c = y.row<float>(0),
              .a = x.data,
              .b = w.data,
              .rows = x.rows,
              .columns = w.out_features,
              .inner = w.in_features,
              .a_stride = x.cols,
              .b_stride = w.in_features,
              .c_stride = y.cols,
              .c_columns = y.cols,
              .accumulate = accumulate});
}

void CudaTrainBackend::linear_backward(Tensor dx, Tensor dy, const FrozenMatrix& w,
                                       bool accumulate) {
  cuda::gemm(stream(), element(), GemmForm::plain,
             {.c = dx.row<float>(0),
              .a = dy.data,
              .b = w.data,
              .rows = dy.rows,
              .columns = w.in_features,
              .inner = w.out_features,
              .a_stride = dy.cols,
              .b_stride = w.in_features,
              .c_stride = dx.cols,
              .c_columns = w.in_features,
              .accumulate = accumulate});
}

void CudaTrainBackend::outer(Tensor c, Tensor a, const Panels& b, bool accumulate) {
  cuda::gemm(stream(), element(), GemmForm::turned_a,
             {.c = c.row<float>(0),
              .a = a.data,
              .b = b.storage.data(),
              .rows = c.rows,
              .columns = c.cols,
              .inner = a.rows,
              .a_stride = a.cols,
              .b_stride = stride(b),
              .c_stride = c.cols,
              .c_columns = c.cols,
              .accumulate = accumulate});
}

void CudaTrainBackend::rms_norm(Tensor out, Tensor x, const float* weight, float eps) {
  cuda::rms_norm(stream(), element_of(out.dtype),
                 {.x = x.row<float>(0),
                  .weight = weight,
                  .out = out.data,
                  .rows = static_cast<int>(x.rows),
                  .cols = static_cast<int>(x.cols),
                  .eps = eps});
}

void CudaTrainBackend::rms_norm_backward(Tensor dx, Tensor dy, Tensor x, const float* weight,
                                         float eps, bool accumulate) {
  cuda::rms_norm_backward(stream(),
                          {.dx = dx.row<float>(0),
                           .dy = dy.row<float>(0),
                           .x = x.row<float>(0),
                           .weight = weight,
                           .cols = static_cast<int>(x.cols),
                           .eps = eps,
                           .accumulate = accumulate},
                          x.rows);
}

void CudaTrainBackend::rotate(Tensor x, std::span<const int32_t> positions, const Rope& rope,
                              int64_t head_dim, bool inverse) {
  Queue& queue = bound();
  cuda::rotate(queue.stream,
               {.x = x.row<float>(0),
                .positions = positions_.of(queue, positions),
                .cos = rope.cos,
                .sin = rope.sin,
                .cols = static_cast<int>(x.cols),
                .head_dim = static_cast<int>(head_dim),
                .interleaved = rope.interleaved,
                .turn = inverse ? -1.0f : 1.0f},
               x.rows);
}

TrainAttentionArgs CudaTrainBackend::with_tiles(TrainAttentionArgs args,
                                                const Documents& documents) {
  const std::vector<DocumentTile> tiles = tiles_of(documents);
  args.tiles = tiles_.of(bound(), std::span<const DocumentTile>(tiles));
  args.num_tiles = static_cast<int>(tiles.size());
  return args;
}

void CudaTrainBackend::attention(Tensor out, Tensor q, Tensor k, Tensor v,
                                 const Documents& documents, const AttentionShape& shape) {
  train_attention(stream(), element(), with_tiles(attention_args(q, k, v, shape), documents),
                  out.data);
}

void CudaTrainBackend::attention_backward(Tensor dq, Tensor dk, Tensor dv, Tensor dout, Tensor q,
                                          Tensor k, Tensor v, const Documents& documents,
                                          const AttentionShape& shape) {
  Queue& queue = bound();
  const TrainAttentionArgs args = with_tiles(attention_args(q, k, v, shape), documents);
  train_attention_backward(
      queue.stream, element(), args,
      {.dout = dout.row<float>(0),
       .dq = dq.row<float>(0),
       .dk = dk.row<float>(0),
       .dv = dv.row<float>(0),
       .states = queue.scratch.reserve<SoftmaxState>(queue.stream, q.rows * shape.num_heads)});
}

void CudaTrainBackend::silu_mul(Tensor out, Tensor gate, Tensor up) {
  cuda::silu_mul(stream(), element(), out.data, gate.row<float>(0), up.row<float>(0),
                 elements(out));
}

void CudaTrainBackend::silu_mul_backward(Tensor dgate, Tensor dup, Tensor dy, Tensor gate,
                                         Tensor up) {
  cuda::silu_mul_backward(stream(), element(), dgate.data, dup.data, dy.row<float>(0),
                          gate.row<float>(0), up.row<float>(0), elements(dy));
}

void CudaTrainBackend::copy(Tensor out, Tensor x) {
  stream().copy_on_device(out.data, x.data, x.bytes());
}

void CudaTrainBackend::gather(Tensor out, int64_t first_column, Tensor x,
                              std::span<const int32_t> rows) {
  Queue& queue = bound();
  const auto offset = static_cast<size_t>(first_column) * block_bytes(x.dtype);
  gather_columns(queue.stream,
                 {.out = out.row<char>(0) + offset,
                  .x = x.data,
                  .rows = indices_.of(queue, rows),
                  .count = static_cast<int64_t>(rows.size()),
                  .out_stride = static_cast<int64_t>(out.row_bytes()),
                  .row_bytes = static_cast<int64_t>(x.row_bytes())},
                 out.rows);
}

void CudaTrainBackend::scatter(Tensor out, Tensor x, std::span<const int32_t> rows,
                               bool accumulate) {
  Queue& queue = bound();
  scatter_rows(queue.stream,
               {.out = out.row<float>(0),
                .x = x.row<float>(0),
                .rows = indices_.of(queue, rows),
                .cols = static_cast<int>(x.cols),
                .accumulate = accumulate},
               static_cast<int64_t>(rows.size()));
}

void CudaTrainBackend::add(Tensor out, Tensor x) {
  cuda::add(stream(), out.row<float>(0), x.row<float>(0), elements(x));
}

void CudaTrainBackend::add_bias(Tensor y, const float* bias) {
  cuda::add_bias(stream(), y.row<float>(0), bias, static_cast<int>(y.cols), elements(y));
}

void CudaTrainBackend::scale(Tensor out, Tensor x, float factor) {
  cuda::scale(stream(), element(), out.data, x.row<float>(0), factor, elements(x));
}

void CudaTrainBackend::dropout(Tensor out, Tensor x, const Dropout& noise) {
  cuda::dropout(stream(), element(), out.data, x.data, dropout_args(noise, x), x.rows);
}

void CudaTrainBackend::add_dropped(Tensor out, Tensor x, const Dropout& noise) {
  cuda::add_dropped(stream(), out.row<float>(0), x.row<float>(0), dropout_args(noise, x), x.rows);
}

void CudaTrainBackend::divergence(Tensor grad, std::span<double> divergences, Tensor student,
                                  Tensor teacher, int64_t vocab, std::span<const float> weights) {
  Queue& queue = bound();
  auto* results = queue.results.reserve<double>(queue.stream, student.rows);
  cuda::divergence(queue.stream, element(),
                   {.grad = grad.data,
                    .divergences = results,
                    .student = student.row<float>(0),
                    .teacher = teacher.row<float>(0),
                    .weights = weights_.of(queue, weights),
                    .cols = static_cast<int>(student.cols),
                    .vocab = static_cast<int>(vocab)},
                   student.rows);
  arrivals_.expect(queue.stream, divergences.data(), results,
                   static_cast<size_t>(student.rows) * sizeof(double));
}

}  // namespace medusa::cuda
