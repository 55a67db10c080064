#pragma once

#include <cstddef>
#include <functional>

namespace medusa::emulation {

/// Bytes of the device's memory that kernels touch, in sectors of 32.
struct Traffic {
  size_t moved = 0;  // sectors read that the work itself had not written, and sectors written: once
  size_t asked =
      0;  // sectors that a block touches, once for each block: what its caches cannot spare
};

/// Of the kernels that run meanwhile, as far as their sources are compiled with -fsanitize=thread,
/// whose calls are answered here instead of by its library.
Traffic traffic_of(const std::function<void()>& work);

}  // namespace medusa::emulation
