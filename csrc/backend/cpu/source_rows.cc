#include "backend/cpu/source_rows.h"

#include <algorithm>
#include <cmath>

#include "backend/cpu/kernels.h"
#include "base/check.h"
#include "tensor/float8.h"
#include "tensor/quants.h"

namespace medusa::cpu {

int64_t count_rows(const WeightSource& source) {
  if (!source.rows.empty()) return static_cast<int64_t>(source.rows.size());
  int64_t rows = 0;
  for (const HostTensor* part : source.parts) rows += part->shape[0];
  return rows;
}

SourceRow locate(const WeightSource& source, int64_t n) {
  if (!source.rows.empty()) return {0, source.rows[static_cast<size_t>(n)]};
  if (source.pack == Pack::interleave) {
    const int64_t block = n / kBlock;
    return {static_cast<size_t>(block % 2), block / 2 * kBlock + n % kBlock};
  }
  size_t part = 0;
  for (; n >= source.parts[part]->shape[0]; ++part) n -= source.parts[part]->shape[0];
  return {part, n};
}

void widen_row(float* out, const HostTensor& tensor, int64_t row) {
  if (tensor.dtype == DType::f8_e4m3) return widen_float8_row(out, tensor, row);
  const int64_t k = tensor.shape.back();
  const size_t bytes =
      static_cast<size_t>(k / block_elements(tensor.dtype)) * block_bytes(tensor.dtype);
  dequantize(out, static_cast<const char*>(tensor.data) + static_cast<size_t>(row) * bytes,
             tensor.dtype, k);
}

std::vector<float> widen_bias(const WeightSource& source) {
  const auto& biases = source.biases;
  if (std::all_of(biases.begin(), biases.end(), [](const auto* b) { return b == nullptr; })) {
    return {};
  }
  std::vector<std::vector<float>> parts(source.parts.size());
  for (size_t p = 0; p < parts.size(); ++p) {
    parts[p].resize(static_cast<size_t>(source.parts[p]->shape[0]));
    if (biases[p] != nullptr) widen_row(parts[p].data(), *biases[p], 0);
  }
  std::vector<float> out(static_cast<size_t>(count_rows(source)));
  for (size_t n = 0; n < out.size(); ++n) {
    const SourceRow from = locate(source, static_cast<int64_t>(n));
    out[n] = parts[from.part][static_cast<size_t>(from.row)];
    check<ModelFormatError>(std::isfinite(out[n]), source.name, ": bias ", n, " is not finite");
  }
  return out;
}

}  // namespace medusa::cpu
