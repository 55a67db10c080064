#pragma once

#include <cstdint>
#include <vector>

#include "backend/weight.h"

namespace medusa::cpu {

struct SourceRow {
  size_t part;
  int64_t row;
};

/// Rows that a source packs.
int64_t count_rows(const WeightSource& source);

/// Where packed row n comes from.
SourceRow locate(const WeightSource& source, int64_t n);

/// Row `row` of a matrix, or a vector, as floats.
void widen_row(float* out, const HostTensor& tensor, int64_t row);

/// The biases of a source that was checked, in packed row order; empty: none. Throws
/// ModelFormatError for values that are not finite.
std::vector<float> widen_bias(const WeightSource& source);

}  // namespace medusa::cpu
