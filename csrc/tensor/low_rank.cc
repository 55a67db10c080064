#include "tensor/low_rank.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "tensor/quants.h"

namespace medusa {
namespace {

constexpr int64_t kColumns = 16;  // whose sums stay in registers

// row += scale · (up · down), `down` (rank, columns).
void add_row(float* row, const float* up, const LowRank& added, int64_t columns) {
  for (int64_t first = 0; first < columns; first += kColumns) {
    const int64_t count = std::min(kColumns, columns - first);
    float sums[kColumns] = {};
    for (int64_t k = 0; k < added.rank; ++k) {
      const float* down = added.down + k * columns + first;
      if (count == kColumns) {
        for (int64_t c = 0; c < kColumns; ++c) sums[c] += up[k] * down[c];
      } else {
        for (int64_t c = 0; c < count; ++c) sums[c] += up[k] * down[c];
      }
    }
    for (int64_t c = 0; c < count; ++c) row[first + c] += added.scale * sums[c];
  }
}

void round_row(char* out, DType dtype, const float* row, int64_t columns) {
  if (dtype == DType::f32) {
    std::copy_n(row, columns, reinterpret_cast<float*>(out));
  } else if (dtype == DType::f16) {
    std::transform(row, row + columns, reinterpret_cast<f16*>(out), to_f16);
  } else {
    std::transform(row, row + columns, reinterpret_cast<bf16*>(out), to_bf16);
  }
}

float largest(float most, const float* row, int64_t columns) {
  for (int64_t c = 0; c < columns; ++c) {
    if (std::isnan(most)) return most;
    const float size = std::abs(row[c]);
    if (!(size <= most)) most = size;
  }
  return most;
}

}  // namespace

float add_low_rank(void* out, DType dtype, const HostTensor& base, const LowRank& added,
                   ThreadPool& pool) {
  const int64_t rows = base.shape.size() == 2 ? base.shape[0] : 1, columns = base.shape.back();
  const size_t in_bytes =
      static_cast<size_t>(columns / block_elements(base.dtype)) * block_bytes(base.dtype);
  const size_t out_bytes = static_cast<size_t>(columns) * block_bytes(dtype);
  std::vector<float> most(static_cast<size_t>(pool.num_threads()));
  pool.parallel_for(rows, 16, [&](int64_t begin, int64_t end, int thread) {
    std::vector<float> row(static_cast<size_t>(columns));
    float mine = 0;
    for (int64_t r = begin; r < end; ++r) {
      const auto at = static_cast<size_t>(r);
      dequantize(row.data(), static_cast<const char*>(base.data) + at * in_bytes, base.dtype,
                 columns);
      if (added.rank > 0) add_row(row.data(), added.up + r * added.rank, added, columns);
      mine = largest(mine, row.data(), columns);
      round_row(static_cast<char*>(out) + at * out_bytes, dtype, row.data(), columns);
    }
    most[static_cast<size_t>(thread)] = mine;
  });
  return largest(0, most.data(), static_cast<int64_t>(most.size()));
}

}  // namespace medusa
