#include "base/pages.h"

#include <sys/mman.h>

#include <cstdint>

#include "base/check.h"

namespace medusa {
namespace {

constexpr size_t kPage = size_t{4} << 10;
constexpr size_t kHugePage = size_t{2} << 20;

size_t round_up(size_t bytes, size_t unit) { return (bytes + unit - 1) / unit * unit; }

size_t mapped_bytes(size_t bytes) { return round_up(bytes, bytes < kHugePage ? kPage : kHugePage); }

void* map_anonymous(size_t bytes) {
  void* data = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  check<OutOfMemory>(data != MAP_FAILED, "cannot map ", bytes, " bytes of memory");
  return data;
}

// A huge page needs an aligned start: maps one more and gives back what sticks out.
void* map_huge(size_t bytes) {
  const size_t total = bytes + kHugePage;
  auto* start = static_cast<char*>(map_anonymous(total));
  const size_t head =
      round_up(reinterpret_cast<uintptr_t>(start), kHugePage) - reinterpret_cast<uintptr_t>(start);
  if (head > 0) munmap(start, head);
  if (kHugePage > head) munmap(start + head + bytes, kHugePage - head);
#ifdef MADV_HUGEPAGE
  madvise(start + head, bytes, MADV_HUGEPAGE);
#endif
  return start + head;
}

}  // namespace

void* map_pages(size_t bytes) {
  if (bytes == 0) return nullptr;
  const size_t mapped = mapped_bytes(bytes);
  check<OutOfMemory>(mapped >= bytes && mapped < SIZE_MAX - kHugePage, "cannot map ", bytes,
                     " bytes of memory");
  return mapped < kHugePage ? map_anonymous(mapped) : map_huge(mapped);
}

void unmap_pages(void* data, size_t bytes) noexcept {
  if (data != nullptr) munmap(data, mapped_bytes(bytes));
}

}  // namespace medusa
