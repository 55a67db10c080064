#pragma once

#include "backend/backend.h"
#include "medusa/config.h"
#include "medusa/tree.h"

namespace medusa {

/// Checks the limits a caller gave and chooses those left at zero. Throws InvalidArgument for
/// limits that contradict each other, OutOfMemory when the cache cannot hold one sequence of
/// max_model_len tokens.
EngineOptions resolve_limits(const EngineOptions& asked, const Backend& backend,
                             const ModelConfig& config, const Tree& tree);

}  // namespace medusa
