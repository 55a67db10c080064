#pragma once

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <vector>

#include "kernel_case.h"

namespace medusa {

inline int32_t sample(Backend& backend, const Matrix& logits, const SampleRow& row) {
  int32_t id = -1;
  ops::sample(backend, {&id, 1}, logits, {&row, 1});
  return id;
}

/// Ids, highest logit first, lowest id first on ties.
inline std::vector<int32_t> by_value(const Matrix& logits, int64_t row) {
  std::vector<int32_t> ids(static_cast<size_t>(logits.view().cols));
  std::iota(ids.begin(), ids.end(), 0);
  std::stable_sort(ids.begin(), ids.end(),
                   [&](int32_t a, int32_t b) { return logits.at(row, a) > logits.at(row, b); });
  return ids;
}

}  // namespace medusa
