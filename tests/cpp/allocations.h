#pragma once

#include <cstdint>

namespace medusa::testing {

/// Calls of operator new by any thread of this process so far.
int64_t allocations();

}  // namespace medusa::testing
