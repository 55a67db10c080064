#include "backend/cuda/pack.h"

#include <cmath>
#include <numeric>

#include "backend/cuda/packing.h"
#include "base/check.h"
#include "tensor/quants.h"

namespace medusa::cuda {
namespace {

void put(float* out, int64_t n, int64_t k, int64_t in_features, float value) {
  out[packed_index_32(n, k, in_features)] = value;
}
void put(bf16* out, int64_t n, int64_t k, int64_t in_features, float value) {
  out[packed_index_16(n, k, in_features)] = to_bf16(value);
}

// A panel at a time, so that the widened rows stay few.
template <class T>
void pack(T* out, Backend& host, const Weight& weight, const char* name) {
  const int64_t width = weight.in_features;
  std::vector<float> rows(static_cast<size_t>(kPanel * width));
  std::vector<int32_t> ids(kPanel);
  for (int64_t first = 0; first < weight.out_features; first += kPanel) {
    const int64_t count = std::min<int64_t>(kPanel, weight.out_features - first);
    ids.resize(static_cast<size_t>(count));
    std::iota(ids.begin(), ids.end(), static_cast<int32_t>(first));
    host.embed({rows.data(), DType::f32, count, width}, weight, ids);
    for (int64_t i = 0; i < count * width; ++i) {
      const float value = rows[static_cast<size_t>(i)];
      check<ModelFormatError>(sizeof(T) == 4 || std::isfinite(to_float(to_bf16(value))), name,
                              ": expected finite weights, found one that overflows BF16 in row ",
                              first + i / width);
      put(out, first + i / width, i % width, width, value);
    }
  }
}

}  // namespace

std::vector<uint8_t> pack_rows(Backend& host, const Weight& weight, DType dtype, const char* name) {
  const int64_t padded = (weight.out_features + kPanel - 1) / kPanel * kPanel;
  std::vector<uint8_t> out(static_cast<size_t>(padded * weight.in_features) * block_bytes(dtype));
  if (dtype == DType::f32) {
    pack(reinterpret_cast<float*>(out.data()), host, weight, name);
  } else {
    pack(reinterpret_cast<bf16*>(out.data()), host, weight, name);
  }
  return out;
}

}  // namespace medusa::cuda
