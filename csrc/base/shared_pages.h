#pragma once

#include <cstddef>

namespace medusa {

/// Like map_pages, for blocks that are written once and live as long as their neighbours (weights):
/// small ones lie one after another on shared huge pages, which a mapping of their own would be too
/// small for. The system has the memory back when all that share it are released.
void* map_shared_pages(size_t bytes);
void unmap_shared_pages(void* data, size_t bytes) noexcept;

}  // namespace medusa
