#include "backend/cpu/cpu_train_backend.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <vector>

#include "backend/cpu/isa.h"
#include "base/check.h"
#include "base/thread_pool.h"
#include "tensor/quants.h"

namespace medusa {
namespace cpu {
namespace {

constexpr int64_t kPanelWidth = 16;
constexpr int64_t kRowBlock = 96;    // rows and panels of a product that one task computes:
constexpr int64_t kPanelBlock = 12;  // their operands share the L2 cache

}  // namespace

CpuTrainBackend::CpuTrainBackend(const TrainKernels& kernels, ComputeType type, int num_threads)
    : kernels_(kernels),
      type_(type == ComputeType::bfloat16 ? kBf16 : kF32),
      dtype_(type == ComputeType::bfloat16 ? DType::bf16 : DType::f32),
      pool_(num_threads) {}

uint32_t* CpuTrainBackend::panel(const Panels& b, int64_t p) const {
  return static_cast<uint32_t*>(b.storage.data()) + p * kPanelWidth * lanes(b.inner);
}

std::string CpuTrainBackend::name() const {
  return text("cpu (", kernels_.name, ", ", pool_.num_threads(), " threads)");
}

Buffer CpuTrainBackend::allocate(size_t bytes) {
  const size_t rounded = (bytes + 63) / 64 * 64;
  void* data = std::aligned_alloc(64, std::max<size_t>(rounded, 64));
  check<OutOfMemory>(data != nullptr, "training needs ", bytes, " more bytes than there are");
  std::memset(data, 0, rounded);
  return {data, rounded, [](void* p, size_t) noexcept { std::free(p); }};
}

Panels CpuTrainBackend::allocate_panels(int64_t inner, int64_t columns) {
  Panels b{.storage = {}, .inner = inner, .columns = columns};
  b.storage = allocate(static_cast<size_t>(b.count() * kPanelWidth * lanes(inner)) * 4);
  return b;
}

void CpuTrainBackend::zero(Tensor x) { std::memset(x.data, 0, x.bytes()); }

void CpuTrainBackend::load_rows(Tensor out, int64_t first_column, const HostTensor& from,
                                std::span<const int64_t> rows) {
  const int64_t count = static_cast<int64_t>(rows.size());
  const auto bytes = static_cast<int64_t>(block_bytes(dtype_));
  each_row(out.rows, [&](int64_t r) {
    char* to = out.row<char>(r) + first_column * bytes;
    if (r < count) {
      load_row(to, from, rows[static_cast<size_t>(r)]);
    } else {
      std::memset(to, 0, static_cast<size_t>(from.shape[1] * bytes));
    }
  });
}

void CpuTrainBackend::add_columns(Tensor out, Tensor x) {
  each_row(out.rows,
           [&](int64_t r) { kernels_.add[kF32](out.row<float>(r), x.row<float>(r), out.cols); });
}

void CpuTrainBackend::pack_transposed(Panels& b, Tensor w) {
  const int64_t k = lanes(b.inner);
  parallel(b.count(), [&](int64_t p) {
    const int64_t rows = std::min(kPanelWidth, w.rows - p * kPanelWidth);
    kernels_.pack_transposed(panel(b, p), w.row<uint32_t>(p * kPanelWidth), k, rows);
  });
}

void CpuTrainBackend::pack(Panels& b, Tensor x) {
  const auto kernel = kernels_.pack[type_];
  parallel(b.count(), [&](int64_t p) {
    kernel(panel(b, p), x.data, x.cols, p * kPanelWidth, lanes(b.inner));
  });
}

void CpuTrainBackend::transpose(Tensor out, Tensor x) {
  const auto kernel = kernels_.transpose[type_];
  parallel(out.rows / kPanelWidth, [&](int64_t p) {
    kernel(out.row<uint32_t>(p * kPanelWidth), x.data, x.cols, p * kPanelWidth, lanes(x.rows));
  });
}

void CpuTrainBackend::narrow(Tensor out, Tensor x) {
  float* in = x.row<float>(0);
  if (!bf16()) {
    std::memcpy(out.data, in, x.bytes());
    return;
  }
  elements(x.rows * x.cols, [&](int64_t first, int64_t count) {
    kernels_.narrow(out.row<uint16_t>(0) + first, in + first, count);
  });
}

void CpuTrainBackend::gemm(Tensor c, Tensor a, const Panels& b, bool accumulate) {
  const auto kernel = kernels_.gemm[type_];
  const int64_t row_blocks = (a.rows + kRowBlock - 1) / kRowBlock;
  const int64_t panel_blocks = (b.count() + kPanelBlock - 1) / kPanelBlock;
  parallel(row_blocks * panel_blocks, [&](int64_t task) {
    const int64_t row = task / panel_blocks * kRowBlock;
    const int64_t first = task % panel_blocks * kPanelBlock;
    kernel({.a = a.row<uint32_t>(row),
            .a_stride = lanes(a.cols),
            .b = panel(b, first),
            .lanes = lanes(b.inner),
            .c = c.row<float>(row) + first * kPanelWidth,
            .c_stride = c.cols,
            .rows = std::min(kRowBlock, a.rows - row),
            .panels = std::min(kPanelBlock, b.count() - first),
            .accumulate = accumulate});
  });
}

void CpuTrainBackend::residual_silu(Tensor out, Tensor x, Tensor z, const float* bias) {
  const auto kernel = kernels_.residual_silu[type_];
  parallel(x.rows, [&](int64_t r) {
    kernel(out.row<void>(r), x.row<void>(r), z.row<float>(r), bias, z.cols);
  });
}

// Tasks split columns, so that every bias gradient adds its rows in order.
void CpuTrainBackend::silu_backward(Tensor dz, float* dbias, Tensor dh, Tensor z) {
  const auto kernel = kernels_.silu_backward[type_];
  parallel(z.cols / kPanelWidth, [&](int64_t p) {
    const int64_t at = p * kPanelWidth;
    for (int64_t r = 0; r < z.rows; ++r) {
      kernel(dz.row<char>(r) + at * static_cast<int64_t>(block_bytes(dtype_)),
             dh.row<float>(r) + at, z.row<float>(r) + at, dbias + at, kPanelWidth);
    }
  });
}

void CpuTrainBackend::cross_entropy(Tensor grad, std::span<TargetScore> scores, Tensor logits,
                                    int64_t vocab, std::span<const int32_t> targets, float scale) {
  parallel(logits.rows, [&](int64_t r) {
    scores[static_cast<size_t>(r)] =
        row_cross_entropy(grad.row<void>(r), logits.row<float>(r), logits.cols, vocab,
                          targets[static_cast<size_t>(r)], scale);
  });
}

double CpuTrainBackend::squared_norm(std::span<const float> x) {
  const int64_t count = static_cast<int64_t>(x.size());
  std::vector<double> parts(static_cast<size_t>((count + kElements - 1) / kElements));
  elements(count, [&](int64_t first, int64_t n) {
    parts[static_cast<size_t>(first / kElements)] = kernels_.squared_norm(x.data() + first, n);
  });
  double sum = 0;
  for (double part : parts) sum += part;
  return sum;
}

void CpuTrainBackend::adamw(std::span<float> weights, std::span<const float> grads,
                            std::span<float> mean, std::span<float> square, const AdamW& o) {
  const AdamStep step = adam_step(o);
  elements(static_cast<int64_t>(weights.size()), [&](int64_t first, int64_t n) {
    kernels_.adamw(weights.data() + first, grads.data() + first, mean.data() + first,
                   square.data() + first, n, step);
  });
}

void CpuTrainBackend::load_row(void* out, const HostTensor& from, int64_t row) const {
  const int64_t cols = from.shape[1];
  const size_t bytes = static_cast<size_t>(cols) * block_bytes(from.dtype);
  const char* in = static_cast<const char*>(from.data) + static_cast<size_t>(row) * bytes;
  if (from.dtype == dtype_) {
    std::memcpy(out, in, bytes);
  } else if (from.dtype == DType::bf16) {
    const auto* elements = reinterpret_cast<const medusa::bf16*>(in);
    std::transform(elements, elements + cols, static_cast<float*>(out),
                   [](medusa::bf16 x) { return to_float(x); });
  } else {
    kernels_.narrow(static_cast<uint16_t*>(out), reinterpret_cast<const float*>(in), cols);
  }
}

TargetScore CpuTrainBackend::row_cross_entropy(void* grad, float* logits, int64_t padded,
                                               int64_t vocab, int32_t target, float scale) const {
  if (target < 0) {
    std::memset(grad, 0, static_cast<size_t>(padded) * block_bytes(dtype_));
    return {};
  }
  std::fill(logits + vocab, logits + padded, -std::numeric_limits<float>::infinity());
  const CrossEntropy e = kernels_.softmax(logits, padded, target);
  logits[target] -= e.sum;  // softmax - 1 there, after scaling
  kernels_.scale[type_](grad, logits, scale / e.sum, padded);
  return {.log_prob = static_cast<float>(double{e.target} - e.max - std::log(double{e.sum})),
          .rank = e.rank};
}

}  // namespace cpu

const cpu::TrainKernels& cpu::train_kernels(cpu::Isa isa) {
  switch (isa) {
#if defined(__x86_64__)
    case cpu::Isa::amx:
      return cpu::amx_train_kernels();
    case cpu::Isa::avx512_bf16:
      return cpu::avx512_bf16_train_kernels();
    case cpu::Isa::avx512:
      return cpu::avx512_train_kernels();
    case cpu::Isa::avx2:
      return cpu::avx2_train_kernels();
#endif
    default:
      return cpu::generic_train_kernels();
  }
}

std::shared_ptr<BackboneTrainBackend> make_cpu_train_backend(const cpu::TrainKernels& kernels,
                                                             ComputeType compute_type,
                                                             int num_threads) {
  return std::make_shared<cpu::CpuTrainBackend>(kernels, compute_type, num_threads);
}

std::shared_ptr<BackboneTrainBackend> make_cpu_backbone_train_backend(ComputeType compute_type,
                                                                      int num_threads) {
  return make_cpu_train_backend(cpu::train_kernels(cpu::choose_isa()), compute_type, num_threads);
}

std::shared_ptr<TrainBackend> make_cpu_train_backend(ComputeType compute_type, int num_threads) {
  return make_cpu_backbone_train_backend(compute_type, num_threads);
}

}  // namespace medusa
