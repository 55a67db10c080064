#pragma once

#include <cstddef>

namespace medusa {

/// Zeroed memory straight from the system, on huge pages where the system has them: without them
/// software prefetch stops at 4 KiB borders. Throws OutOfMemory.
void* map_pages(size_t bytes);
void unmap_pages(void* data, size_t bytes) noexcept;

}  // namespace medusa
