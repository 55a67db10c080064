#include <cmath>
#include <cstring>
#include <limits>

#include "backend/cpu/cpu_train_backend.h"
#include "base/check.h"
#include "tensor/quants.h"

namespace medusa::cpu {
namespace {

constexpr int64_t kPanelWidth = 16;
constexpr int64_t kRowBlock = 96;      // rows of A that share the L2 cache with a task's panels
constexpr int64_t kInnerBlock = 1024;  // rows of a frozen matrix that backward widens at a time

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

/// Panels of one task: few enough for every thread to find some, a multiple of `unit`.
int64_t panels_of_task(int64_t panels, int64_t threads, int64_t unit) {
  const int64_t wanted = std::clamp<int64_t>(panels / (4 * threads), 4, 12);
  return ceil_div(wanted, unit) * unit;
}

size_t padded_bytes(int64_t elements, size_t element_bytes) {
  return (static_cast<size_t>(elements) * element_bytes + 63) / 64 * 64;
}

}  // namespace

void CpuTrainBackend::reserve_scratch(size_t bytes_per_thread) {
  if (bytes_per_thread <= scratch_bytes_) return;
  scratch_bytes_ = (bytes_per_thread + 63) / 64 * 64;
  scratch_ = {};
  scratch_ = allocate(scratch_bytes_ * static_cast<size_t>(pool_.num_threads()));
}

// Rows that the matrix does not have are zero. `scratch` holds rows · columns of C and, behind
// them, a row of floats.
CpuTrainBackend::Slice CpuTrainBackend::widened(const FrozenMatrix& w, int64_t row, int64_t rows,
                                                int64_t column, int64_t columns,
                                                void* scratch) const {
  const int64_t block = block_elements(w.dtype), per_row = w.in_features / block;
  const size_t bytes = block_bytes(w.dtype);
  const auto* from = static_cast<const char*>(w.data) +
                     static_cast<size_t>(row * per_row + column / block) * bytes;
  const bool aligned = reinterpret_cast<uintptr_t>(from) % 4 == 0;
  if (w.dtype == dtype_ && row + rows <= w.out_features && aligned) return {from, w.in_features};
  auto* out = static_cast<char*>(scratch);
  const size_t out_bytes = static_cast<size_t>(columns) * block_bytes(dtype_);
  auto* wide = reinterpret_cast<float*>(out + padded_bytes(rows * columns, block_bytes(dtype_)));
  for (int64_t r = 0; r < rows; ++r, out += out_bytes) {
    if (row + r >= w.out_features) {
      std::memset(out, 0, out_bytes);
      continue;
    }
    const char* stored = from + static_cast<size_t>(r * per_row) * bytes;
    float* floats = bf16() ? wide : reinterpret_cast<float*>(out);
    dequantize(floats, stored, w.dtype, columns);
    if (bf16()) kernels_.narrow(reinterpret_cast<uint16_t*>(out), wide, columns);
  }
  return {scratch, columns};
}

void CpuTrainBackend::embed(Tensor out, const FrozenMatrix& table, std::span<const int32_t> ids) {
  const size_t row_bytes = static_cast<size_t>(table.in_features / block_elements(table.dtype)) *
                           block_bytes(table.dtype);
  each_row(out.rows, [&](int64_t r) {
    const auto id = static_cast<size_t>(ids[static_cast<size_t>(r)]);
    dequantize(out.row<float>(r), static_cast<const char*>(table.data) + id * row_bytes,
               table.dtype, out.cols);
  });
}

// A task widens and packs some of W's rows, then multiplies all of x by them.
void CpuTrainBackend::linear(Tensor y, Tensor x, const FrozenMatrix& w, bool accumulate) {
  const int64_t panels = y.cols / kPanelWidth, inner = lanes(w.in_features);
  const int64_t block = panels_of_task(panels, pool_.num_threads(), 1);
  const size_t packed_bytes = static_cast<size_t>(block * kPanelWidth * inner) * 4;
  reserve_scratch(packed_bytes + padded_bytes(kPanelWidth * w.in_features, block_bytes(dtype_)) +
                  static_cast<size_t>(w.in_features) * sizeof(float));
  parallel_with_thread(ceil_div(panels, block), [&](int64_t task, int thread) {
    auto* packed = reinterpret_cast<uint32_t*>(scratch(thread));
    const int64_t first = task * block, count = std::min(block, panels - first);
    for (int64_t p = 0; p < count; ++p) {
      const Slice rows = widened(w, (first + p) * kPanelWidth, kPanelWidth, 0, w.in_features,
                                 scratch(thread) + packed_bytes);
      kernels_.pack_transposed(packed + p * kPanelWidth * inner,
                               static_cast<const uint32_t*>(rows.data), inner, kPanelWidth);
    }
    for (int64_t row = 0; row < x.rows; row += kRowBlock) {
      kernels_.gemm[type_]({.a = x.row<uint32_t>(row),
                            .a_stride = inner,
                            .b = packed,
                            .lanes = inner,
                            .c = y.row<float>(row) + first * kPanelWidth,
                            .c_stride = y.cols,
                            .rows = std::min(kRowBlock, x.rows - row),
                            .panels = count,
                            .accumulate = accumulate});
    }
  });
}

// A task takes some of W's columns, widened and packed some rows at a time.
void CpuTrainBackend::linear_backward(Tensor dx, Tensor dy, const FrozenMatrix& w,
                                      bool accumulate) {
  const int64_t panels = dx.cols / kPanelWidth;
  const int64_t unit = std::max<int64_t>(1, block_elements(w.dtype) / kPanelWidth);
  const int64_t block = panels_of_task(panels, pool_.num_threads(), unit);
  const size_t part_bytes = padded_bytes(kInnerBlock * block * kPanelWidth, block_bytes(dtype_));
  reserve_scratch(2 * part_bytes + static_cast<size_t>(block * kPanelWidth) * sizeof(float));
  parallel_with_thread(ceil_div(panels, block), [&](int64_t task, int thread) {
    auto* packed = reinterpret_cast<uint32_t*>(scratch(thread));
    const int64_t first = task * block, count = std::min(block, panels - first);
    for (int64_t n = 0; n < dy.cols; n += kInnerBlock) {
      const int64_t inner = std::min(kInnerBlock, dy.cols - n);
      const Slice part = widened(w, n, inner, first * kPanelWidth, count * kPanelWidth,
                                 scratch(thread) + part_bytes);
      for (int64_t p = 0; p < count; ++p) {
        kernels_.pack[type_](packed + p * kPanelWidth * lanes(inner), part.data, part.stride,
                             p * kPanelWidth, lanes(inner));
      }
      for (int64_t row = 0; row < dy.rows; row += kRowBlock) {
        kernels_.gemm[type_]({.a = dy.row<uint32_t>(row) + lanes(n),
                              .a_stride = lanes(dy.cols),
                              .b = packed,
                              .lanes = lanes(inner),
                              .c = dx.row<float>(row) + first * kPanelWidth,
                              .c_stride = dx.cols,
                              .rows = std::min(kRowBlock, dy.rows - row),
                              .panels = count,
                              .accumulate = accumulate || n > 0});
      }
    }
  });
}

void CpuTrainBackend::outer(Tensor c, Tensor a, const Panels& b, bool accumulate) {
  const int64_t blocks = ceil_div(c.rows, kRowBlock), threads = pool_.num_threads();
  const int64_t block = std::clamp<int64_t>(b.count() * blocks / (2 * threads),
                                            std::min<int64_t>(4, b.count()), b.count());
  const int64_t columns = ceil_div(b.count(), block), inner = lanes(a.rows);
  reserve_scratch(static_cast<size_t>(kRowBlock * inner) * 4);
  parallel_with_thread(blocks * columns, [&](int64_t task, int thread) {
    auto* turned = reinterpret_cast<uint32_t*>(scratch(thread));
    const int64_t first = task / columns * kRowBlock, from = task % columns * block;
    const int64_t rows = std::min(kRowBlock, c.rows - first);
    for (int64_t r = 0; r < rows; r += kPanelWidth) {
      kernels_.transpose[type_](turned + r * inner, a.data, a.cols, first + r, inner);
    }
    kernels_.gemm[type_]({.a = turned,
                          .a_stride = inner,
                          .b = panel(b, from),
                          .lanes = inner,
                          .c = c.row<float>(first) + from * kPanelWidth,
                          .c_stride = c.cols,
                          .rows = rows,
                          .panels = std::min(block, b.count() - from),
                          .accumulate = accumulate});
  });
}

void CpuTrainBackend::rms_norm(Tensor out, Tensor x, const float* weight, float eps) {
  const auto kernel = kernels_.rms_norm[out.dtype == DType::f32 ? kF32 : kBf16];
  each_row(x.rows,
           [&](int64_t r) { kernel(out.row<void>(r), x.row<float>(r), weight, x.cols, eps); });
}

void CpuTrainBackend::rms_norm_backward(Tensor dx, Tensor dy, Tensor x, const float* weight,
                                        float eps, bool accumulate) {
  each_row(x.rows, [&](int64_t r) {
    kernels_.rms_norm_backward(dx.row<float>(r), dy.row<float>(r), x.row<float>(r), weight, x.cols,
                               eps, accumulate);
  });
}

void CpuTrainBackend::rotate(Tensor x, std::span<const int32_t> positions, const Rope& rope,
                             int64_t head_dim, bool inverse) {
  each_row(x.rows, [&](int64_t r) {
    const int64_t angles = positions[static_cast<size_t>(r)] * (head_dim / 2);
    for (int64_t i = 0; i < x.cols; i += head_dim) {
      kernels_.rotate(x.row<float>(r) + i, rope.cos + angles, rope.sin + angles, head_dim,
                      rope.interleaved, inverse ? -1.0f : 1.0f);
    }
  });
}

void CpuTrainBackend::silu_mul(Tensor out, Tensor gate, Tensor up) {
  each_row(out.rows, [&](int64_t r) {
    kernels_.silu_mul[type_](out.row<void>(r), gate.row<float>(r), up.row<float>(r), out.cols);
  });
}

void CpuTrainBackend::silu_mul_backward(Tensor dgate, Tensor dup, Tensor dy, Tensor gate,
                                        Tensor up) {
  each_row(dy.rows, [&](int64_t r) {
    kernels_.silu_mul_backward[type_](dgate.row<void>(r), dup.row<void>(r), dy.row<float>(r),
                                      gate.row<float>(r), up.row<float>(r), dy.cols);
  });
}

void CpuTrainBackend::copy(Tensor out, Tensor x) { std::memcpy(out.data, x.data, x.bytes()); }

void CpuTrainBackend::gather(Tensor out, int64_t first_column, Tensor x,
                             std::span<const int32_t> rows) {
  const size_t offset = static_cast<size_t>(first_column) * block_bytes(x.dtype);
  for (int64_t r = 0; r < out.rows; ++r) {
    char* to = out.row<char>(r) + offset;
    const auto at = static_cast<size_t>(r);
    if (at < rows.size()) {
      std::memcpy(to, x.row<char>(rows[at]), x.row_bytes());
    } else {
      std::memset(to, 0, x.row_bytes());
    }
  }
}

void CpuTrainBackend::scatter(Tensor out, Tensor x, std::span<const int32_t> rows,
                              bool accumulate) {
  for (size_t i = 0; i < rows.size(); ++i) {
    float *to = out.row<float>(rows[i]), *from = x.row<float>(static_cast<int64_t>(i));
    if (accumulate) {
      for (int64_t c = 0; c < x.cols; ++c) to[c] += from[c];
    } else {
      std::memcpy(to, from, x.row_bytes());
    }
  }
}

void CpuTrainBackend::add(Tensor out, Tensor x) {
  each_row(x.rows,
           [&](int64_t r) { kernels_.add[kF32](out.row<float>(r), x.row<float>(r), x.cols); });
}

void CpuTrainBackend::add_bias(Tensor y, const float* bias) {
  each_row(y.rows, [&](int64_t r) { kernels_.add[kF32](y.row<float>(r), bias, y.cols); });
}

void CpuTrainBackend::scale(Tensor out, Tensor x, float factor) {
  each_row(x.rows, [&](int64_t r) {
    kernels_.scale[type_](out.row<void>(r), x.row<float>(r), factor, x.cols);
  });
}

DropoutRow CpuTrainBackend::dropout_row(const Dropout& noise, int64_t row) const {
  return {.seed = noise.seed,
          .step = noise.step,
          .site = noise.site,
          .row = noise.first_row + static_cast<uint32_t>(row),
          .threshold = static_cast<uint32_t>(std::lround(noise.probability * 65536)),
          .factor = 1 / (1 - noise.probability)};
}

void CpuTrainBackend::dropout(Tensor out, Tensor x, const Dropout& noise) {
  each_row(x.rows, [&](int64_t r) {
    kernels_.dropout[type_](out.row<void>(r), x.row<void>(r), x.cols, dropout_row(noise, r));
  });
}

void CpuTrainBackend::add_dropped(Tensor out, Tensor x, const Dropout& noise) {
  each_row(x.rows, [&](int64_t r) {
    kernels_.add_dropped(out.row<float>(r), x.row<float>(r), x.cols, dropout_row(noise, r));
  });
}

void CpuTrainBackend::divergence(Tensor grad, std::span<double> divergences, Tensor student,
                                 Tensor teacher, int64_t vocab, std::span<const float> weights) {
  constexpr float kNever = -std::numeric_limits<float>::infinity();
  parallel(student.rows, [&](int64_t r) {
    const auto at = static_cast<size_t>(r);
    divergences[at] = 0;
    if (weights[at] == 0) {
      std::memset(grad.row<char>(r), 0, grad.row_bytes());
      return;
    }
    std::fill(student.row<float>(r) + vocab, student.row<float>(r) + student.cols, kNever);
    std::fill(teacher.row<float>(r) + vocab, teacher.row<float>(r) + teacher.cols, kNever);
    const Divergence d = kernels_.divergence[type_](
        grad.row<void>(r), student.row<float>(r), teacher.row<float>(r), student.cols, weights[at]);
    divergences[at] = d.cross + std::log(d.ratio);
  });
}

}  // namespace medusa::cpu
