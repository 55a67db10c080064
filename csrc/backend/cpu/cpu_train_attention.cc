#include <cstring>

#include "backend/cpu/cpu_train_backend.h"
#include "tensor/quants.h"

namespace medusa::cpu {
namespace {

constexpr int64_t kPanelWidth = 16;
constexpr int64_t kQueries = 64;  // rows whose scores exist at a time

int64_t padded(int64_t n) { return (n + 31) / 32 * 32; }

}  // namespace

/// Memory of one document's kv head. Rows of C are `width` wide, both padded to 32.
struct CpuTrainBackend::HeadScratch {
  HeadScratch(char* memory, int64_t longest, int64_t head_dim, size_t c_bytes)
      : length(padded(longest)), width(padded(head_dim)) {
    const auto take = [&](int64_t elements, size_t size) {
      char* at = memory + bytes;
      bytes += (static_cast<size_t>(elements) * size + 63) / 64 * 64;
      return at;
    };
    for (char** rows : {&q, &k, &v, &dout}) *rows = take(length * width, c_bytes);
    for (uint32_t** panels : {&keys_turned, &keys, &values_turned, &values}) {
      *panels = reinterpret_cast<uint32_t*>(take(length * width, c_bytes));
    }
    for (uint32_t** panels : {&some_queries, &some_dout}) {
      *panels = reinterpret_cast<uint32_t*>(take(kQueries * width, c_bytes));
    }
    for (char** square : {&p, &ds, &turned}) *square = take(kQueries * length, c_bytes);
    for (float** square : {&scores, &dp}) {
      *square = reinterpret_cast<float*>(take(kQueries * length, sizeof(float)));
    }
    out = reinterpret_cast<float*>(take(kQueries * width, sizeof(float)));
    for (float** rows : {&dk, &dv}) {
      *rows = reinterpret_cast<float*>(take(length * width, sizeof(float)));
    }
  }

  int64_t length, width;
  size_t bytes = 0;
  char *q, *k, *v, *dout;                                 // C (length, width)
  uint32_t *keys_turned, *keys, *values_turned, *values;  // panels: B = kᵀ, k, vᵀ, v
  uint32_t *some_queries, *some_dout;                     // panels: B = rows of q, of dout
  char *p, *ds, *turned;                                  // C (kQueries, length) and its transpose
  float *scores, *dp;                                     // (kQueries, length)
  float* out;                                             // (kQueries, width)
  float *dk, *dv;                                         // (length, width)
};

namespace {

/// One document's rows of one head.
struct HeadRows {
  int64_t first, count, column, head_dim;
};

int64_t longest(const Documents& documents) {
  int64_t most = 0;
  for (size_t i = 0; i + 1 < documents.starts.size(); ++i) {
    most = std::max<int64_t>(most, documents.starts[i + 1] - documents.starts[i]);
  }
  return most;
}

/// The products and row kernels of one document's kv head.
class HeadMath {
 public:
  HeadMath(const TrainKernels& kernels, int type, const AttentionShape& shape, int64_t length,
           int64_t width)
      : kernels_(kernels), type_(type), shape_(shape), length_(length), width_(width) {}

  int64_t lanes(int64_t n) const { return type_ == kBf16 ? n / 2 : n; }
  size_t size() const { return type_ == kBf16 ? 2 : 4; }

  /// Rows of f32 into C, zero where there are none.
  void gather(char* to, Tensor x, const HeadRows& rows) const {
    const size_t row_bytes = static_cast<size_t>(width_) * size();
    std::memset(to, 0, static_cast<size_t>(length_) * row_bytes);
    for (int64_t r = 0; r < rows.count; ++r, to += row_bytes) {
      narrow(to, x.row<float>(rows.first + r) + rows.column, rows.head_dim);
    }
  }
  void narrow(char* to, const float* from, int64_t count) const {
    if (type_ == kF32) {
      std::memcpy(to, from, static_cast<size_t>(count) * sizeof(float));
    } else {
      kernels_.narrow(reinterpret_cast<uint16_t*>(to), from, count);
    }
  }
  /// B = rowsᵀ (width, length).
  void pack_turned(uint32_t* to, const char* rows) const {
    const auto* words = reinterpret_cast<const uint32_t*>(rows);
    const int64_t panel = kPanelWidth * lanes(width_);
    for (int64_t p = 0; p < length_ / kPanelWidth; ++p) {
      kernels_.pack_transposed(to + p * panel, words + p * panel, lanes(width_), kPanelWidth);
    }
  }
  /// B = `count` rows (count, width).
  void pack(uint32_t* to, const char* rows, int64_t count) const {
    for (int64_t p = 0; p < width_ / kPanelWidth; ++p) {
      kernels_.pack[type_](to + p * kPanelWidth * lanes(count), rows, width_, p * kPanelWidth,
                           lanes(count));
    }
  }
  /// (count, seen) of C to (seen, count).
  void turn(char* to, const char* square, int64_t count, int64_t seen) const {
    auto* words = reinterpret_cast<uint32_t*>(to);
    for (int64_t r = 0; r < seen; r += kPanelWidth) {
      kernels_.transpose[type_](words + r * lanes(count), square, length_, r, lanes(count));
    }
  }
  /// scores (count, seen) = rows · B, B over `width`.
  void score(float* to, const char* rows, const uint32_t* b, int64_t count, int64_t seen) const {
    kernels_.gemm[type_]({.a = reinterpret_cast<const uint32_t*>(rows),
                          .a_stride = lanes(width_),
                          .b = b,
                          .lanes = lanes(width_),
                          .c = to,
                          .c_stride = length_,
                          .rows = count,
                          .panels = seen / kPanelWidth});
  }
  /// out (count, width) = square (count, seen) · B, B over `length`.
  void combine(float* to, const char* square, const uint32_t* b, int64_t count,
               int64_t seen) const {
    kernels_.gemm[type_]({.a = reinterpret_cast<const uint32_t*>(square),
                          .a_stride = lanes(length_),
                          .b = b,
                          .lanes = lanes(seen),
                          .panel_lanes = lanes(length_),
                          .c = to,
                          .c_stride = width_,
                          .rows = count,
                          .panels = width_ / kPanelWidth});
  }
  /// out (seen, width) += turned (seen, count) · B, B over `count`.
  void spread(float* to, const char* turned, const uint32_t* b, int64_t count, int64_t seen) const {
    kernels_.gemm[type_]({.a = reinterpret_cast<const uint32_t*>(turned),
                          .a_stride = lanes(count),
                          .b = b,
                          .lanes = lanes(count),
                          .c = to,
                          .c_stride = width_,
                          .rows = seen,
                          .panels = width_ / kPanelWidth,
                          .accumulate = true});
  }
  /// Probabilities of rows first .. first + count - 1, in place and in C.
  void probabilities(char* p, float* scores, int64_t first, int64_t count, int64_t seen) const {
    for (int64_t r = 0; r < count; ++r) {
      const int64_t end = first + r + 1, window = shape_.sliding_window;
      const int64_t begin = window > 0 ? std::max<int64_t>(0, end - window) : 0;
      kernels_.probabilities(scores + r * length_, begin, end, seen, shape_.scale);
      narrow(p + static_cast<size_t>(r * length_) * size(), scores + r * length_, seen);
    }
  }
  void probabilities_backward(char* ds, const float* p, const float* dp, int64_t count,
                              int64_t seen) const {
    for (int64_t r = 0; r < count; ++r) {
      kernels_.probabilities_backward[type_](ds + static_cast<size_t>(r * length_) * size(),
                                             p + r * length_, dp + r * length_, seen, shape_.scale);
    }
  }

 private:
  const TrainKernels& kernels_;
  int type_;
  const AttentionShape& shape_;
  int64_t length_, width_;
};

void copy_rows(Tensor to, const float* from, int64_t stride, const HeadRows& rows) {
  for (int64_t r = 0; r < rows.count; ++r) {
    std::memcpy(to.row<float>(rows.first + r) + rows.column, from + r * stride,
                static_cast<size_t>(rows.head_dim) * sizeof(float));
  }
}

}  // namespace

void CpuTrainBackend::attention(Tensor out, Tensor q, Tensor k, Tensor v,
                                const Documents& documents, const AttentionShape& shape) {
  const int64_t most = longest(documents), d = shape.head_dim;
  reserve_scratch(HeadScratch(nullptr, most, d, block_bytes(dtype_)).bytes);
  const int64_t groups = shape.num_kv_heads, heads = shape.num_heads / groups;
  const int64_t tasks = static_cast<int64_t>(documents.starts.size() - 1) * groups;
  parallel_with_thread(tasks, [&](int64_t task, int thread) {
    const auto document = static_cast<size_t>(task / groups);
    const int64_t first = documents.starts[document], group = task % groups;
    const int64_t count = documents.starts[document + 1] - first;
    const HeadScratch s(scratch(thread), count, d, block_bytes(dtype_));
    const HeadMath math(kernels_, type_, shape, s.length, s.width);
    math.gather(s.k, k, {first, count, group * d, d});
    math.gather(s.v, v, {first, count, group * d, d});
    math.pack_turned(s.keys_turned, s.k);
    math.pack(s.values, s.v, s.length);
    for (int64_t head = group * heads; head < (group + 1) * heads; ++head) {
      math.gather(s.q, q, {first, count, head * d, d});
      for (int64_t row = 0; row < count; row += kQueries) {
        const int64_t rows = std::min(kQueries, s.length - row), seen = row + rows;
        const char* queries = s.q + static_cast<size_t>(row * s.width) * math.size();
        math.score(s.scores, queries, s.keys_turned, rows, seen);
        math.probabilities(s.p, s.scores, row, rows, seen);
        math.combine(s.out, s.p, s.values, rows, seen);
        for (int64_t r = 0; r < std::min(rows, count - row); ++r) {
          char* to = out.row<char>(first + row + r) + static_cast<size_t>(head * d) * math.size();
          math.narrow(to, s.out + r * s.width, d);
        }
      }
    }
  });
}

// Scores are computed anew. Heads of a group add to the keys' and values' gradients in order.
void CpuTrainBackend::attention_backward(Tensor dq, Tensor dk, Tensor dv, Tensor dout, Tensor q,
                                         Tensor k, Tensor v, const Documents& documents,
                                         const AttentionShape& shape) {
  const int64_t most = longest(documents), d = shape.head_dim;
  reserve_scratch(HeadScratch(nullptr, most, d, block_bytes(dtype_)).bytes);
  const int64_t groups = shape.num_kv_heads, heads = shape.num_heads / groups;
  const int64_t tasks = static_cast<int64_t>(documents.starts.size() - 1) * groups;
  parallel_with_thread(tasks, [&](int64_t task, int thread) {
    const auto document = static_cast<size_t>(task / groups);
    const int64_t first = documents.starts[document], group = task % groups;
    const int64_t count = documents.starts[document + 1] - first;
    const HeadScratch s(scratch(thread), count, d, block_bytes(dtype_));
    const HeadMath math(kernels_, type_, shape, s.length, s.width);
    const HeadRows kv{first, count, group * d, d};
    math.gather(s.k, k, kv);
    math.gather(s.v, v, kv);
    math.pack_turned(s.keys_turned, s.k);
    math.pack(s.keys, s.k, s.length);
    math.pack_turned(s.values_turned, s.v);
    const size_t bytes = static_cast<size_t>(s.length * s.width) * sizeof(float);
    std::memset(s.dk, 0, bytes);
    std::memset(s.dv, 0, bytes);
    for (int64_t head = group * heads; head < (group + 1) * heads; ++head) {
      math.gather(s.q, q, {first, count, head * d, d});
      math.gather(s.dout, dout, {first, count, head * d, d});
      for (int64_t row = 0; row < count; row += kQueries) {
        const int64_t rows = std::min(kQueries, s.length - row), seen = row + rows;
        const size_t offset = static_cast<size_t>(row * s.width) * math.size();
        math.score(s.scores, s.q + offset, s.keys_turned, rows, seen);
        math.probabilities(s.p, s.scores, row, rows, seen);
        math.score(s.dp, s.dout + offset, s.values_turned, rows, seen);
        math.probabilities_backward(s.ds, s.scores, s.dp, rows, seen);
        math.pack(s.some_dout, s.dout + offset, rows);
        math.turn(s.turned, s.p, rows, seen);
        math.spread(s.dv, s.turned, s.some_dout, rows, seen);
        math.pack(s.some_queries, s.q + offset, rows);
        math.turn(s.turned, s.ds, rows, seen);
        math.spread(s.dk, s.turned, s.some_queries, rows, seen);
        math.combine(s.out, s.ds, s.keys, rows, seen);
        const HeadRows queries{first + row, std::min(rows, count - row), head * d, d};
        copy_rows(dq, s.out, s.width, queries);
      }
    }
    copy_rows(dk, s.dk, s.width, kv);
    copy_rows(dv, s.dv, s.width, kv);
  });
}

}  // namespace medusa::cpu
