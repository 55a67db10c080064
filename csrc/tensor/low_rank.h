#pragma once

#include <cstdint>

#include "base/thread_pool.h"
#include "medusa/model.h"

namespace medusa {

/// scale · up (rows, rank) · down (rank, columns), f32.
struct LowRank {
  const float* up = nullptr;
  const float* down = nullptr;
  int64_t rank = 0;
  float scale = 1;
};

/// out (rows, columns), f32, f16 or bf16 = base + what is added: summed over the rank in order, in
/// f32, and rounded once. A vector is one row. Returns the largest magnitude; NaN where there is
/// one.
float add_low_rank(void* out, DType dtype, const HostTensor& base, const LowRank& added,
                   ThreadPool& pool);

}  // namespace medusa
