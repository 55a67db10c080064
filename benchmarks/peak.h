#pragma once

#include <string_view>

#include "base/thread_pool.h"

namespace medusa::benchmark {

/// Multiply-adds a second of the bf16 instruction that products use (tdpbf16ps, vdpbf16ps), from
/// registers, on all threads; 0 where `isa` has none.
double bf16_peak(ThreadPool& pool, std::string_view isa);

}  // namespace medusa::benchmark
