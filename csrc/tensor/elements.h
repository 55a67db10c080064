#pragma once

#include <cstdint>

namespace medusa {

/// 16-bit brain float; bits are the upper half of a float's.
struct bf16 {
  uint16_t bits;
};

/// IEEE half precision.
struct f16 {
  uint16_t bits;
};

}  // namespace medusa
