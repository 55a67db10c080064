#pragma once

#include <cstdint>

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

}  // namespace medusa::cpu
