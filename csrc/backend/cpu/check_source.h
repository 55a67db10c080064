#pragma once

#include "backend/weight.h"

namespace medusa::cpu {

/// Throws ModelFormatError that names the tensor, what was expected and what was found, unless the
/// parts fit each other, their shapes, types and bytes agree, and what is packed can be.
void check_source(const WeightSource& source);

}  // namespace medusa::cpu
