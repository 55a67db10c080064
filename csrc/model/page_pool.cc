#include "model/page_pool.h"

namespace medusa {

PagePool::PagePool(int num_pages)
    : references_(num_pages, 0), next_(num_pages + 1, num_pages), prev_(num_pages + 1, num_pages) {
  for (int32_t page = 0; page < num_pages; ++page) link(page, sentinel());
}

void PagePool::link(int32_t page, int32_t before) {
  const int32_t after = prev_[before];
  next_[after] = prev_[before] = page;
  prev_[page] = after;
  next_[page] = before;
  ++num_idle_;
}

void PagePool::unlink(int32_t page) {
  next_[prev_[page]] = next_[page];
  prev_[next_[page]] = prev_[page];
  --num_idle_;
}

void PagePool::retain(int32_t page) {
  if (references_[page]++ == 0) unlink(page);
}

void PagePool::release(int32_t page, bool keep) {
  if (--references_[page] == 0) link(page, keep ? sentinel() : next_idle());
}

}  // namespace medusa
