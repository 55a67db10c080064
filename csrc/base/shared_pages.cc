#include "base/shared_pages.h"

#include <sys/mman.h>

#include <cstdint>
#include <mutex>
#include <new>

#include "base/check.h"
#include "base/pages.h"

namespace medusa {
namespace {

constexpr size_t kChunk = size_t{32} << 20;   // mapped at a multiple of itself
constexpr size_t kLargest = size_t{8} << 20;  // block within a chunk
constexpr size_t kPage = size_t{4} << 10;

/// Lies at the start of its memory; blocks follow.
struct Chunk {
  size_t used = kPage;
  size_t blocks = 0;
};

std::mutex mutex;
Chunk* open_chunk = nullptr;  // takes further blocks

size_t padded(size_t bytes) { return (bytes + kPage - 1) / kPage * kPage; }

Chunk* map_chunk() {
  void* mapped =
      mmap(nullptr, 2 * kChunk, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  check<OutOfMemory>(mapped != MAP_FAILED, "cannot map ", kChunk, " bytes of memory");
  auto* start = static_cast<char*>(mapped);
  const size_t head = (kChunk - reinterpret_cast<uintptr_t>(start) % kChunk) % kChunk;
  if (head > 0) munmap(start, head);
  munmap(start + head + kChunk, kChunk - head);
#ifdef MADV_HUGEPAGE
  madvise(start + head, kChunk, MADV_HUGEPAGE);
#endif
  return new (start + head) Chunk;
}

}  // namespace

void* map_shared_pages(size_t bytes) {
  if (bytes == 0 || bytes > kLargest) return map_pages(bytes);
  const std::lock_guard lock(mutex);
  if (open_chunk == nullptr || open_chunk->used + padded(bytes) > kChunk) open_chunk = map_chunk();
  char* block = reinterpret_cast<char*>(open_chunk) + open_chunk->used;
  open_chunk->used += padded(bytes);
  ++open_chunk->blocks;
  return block;
}

void unmap_shared_pages(void* data, size_t bytes) noexcept {
  if (bytes == 0 || bytes > kLargest) return unmap_pages(data, bytes);
  const std::lock_guard lock(mutex);
  const uintptr_t address = reinterpret_cast<uintptr_t>(data);
  auto* chunk = reinterpret_cast<Chunk*>(address - address % kChunk);
  if (--chunk->blocks > 0) return;
  if (chunk == open_chunk) open_chunk = nullptr;
  munmap(chunk, kChunk);
}

}  // namespace medusa
