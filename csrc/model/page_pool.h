#pragma once

#include <cstdint>
#include <vector>

namespace medusa {

/// Counts the users of each page, and queues the pages that nobody uses. Fixed in size: nothing is
/// allocated after construction.
class PagePool {
 public:
  explicit PagePool(int num_pages);

  int num_pages() const { return static_cast<int>(references_.size()); }
  int num_idle() const { return num_idle_; }

  /// The idle page that should be given up first; there must be one.
  int32_t next_idle() const { return next_[sentinel()]; }
  void retain(int32_t page);
  /// With its last user gone a page is idle: the next to be given up, or, to `keep` what it holds,
  /// the last.
  void release(int32_t page, bool keep);

 private:
  int32_t sentinel() const { return num_pages(); }
  void link(int32_t page, int32_t before);
  void unlink(int32_t page);

  std::vector<int> references_;       // [page]
  std::vector<int32_t> next_, prev_;  // [page], and the sentinel of the ring of idle pages
  int num_idle_ = 0;
};

}  // namespace medusa
