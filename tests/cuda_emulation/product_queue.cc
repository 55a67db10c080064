#include "product_queue.h"

namespace medusa::emulation {

void ProductQueue::add(const AsyncProduct& product, Where where) {
  if (!fenced_) fail("an asynchronous product without a fence of its operands", where);
  items_.push_back({product, open_group_});
  history_ = history_ * 0x100000001b3u + product.right + 1;
  last_ = where;
}

void ProductQueue::check_all_done(const ProductQueue& first) const {
  if (!items_.empty()) {
    fail("an asynchronous product that nobody waits for", items_.front().product.where);
  }
  if (history_ != first.history_) {
    fail("warps of a group multiply by different operands", last_);
  }
}

bool WaitingProducts::ready() const {
  return !queue->items_.empty() && queue->items_.front().group < queue->open_group_ - groups_left;
}

void WaitingProducts::carry_out(void* const (&operands)[32], unsigned mask) {
  const auto& first = *static_cast<const WaitingProducts*>(operands[0]);
  while (first.ready()) {
    void* products[32];
    for (int l = 0; l < 32; ++l) {
      const auto& lane = *static_cast<const WaitingProducts*>(operands[l]);
      if (!lane.ready()) fail("lanes of a warp wait for different products", lane.where);
      products[l] = &lane.queue->items_.front().product;
    }
    static_cast<const AsyncProduct*>(products[0])->carry_out(products, mask);
    for (void* lane : operands) static_cast<WaitingProducts*>(lane)->queue->items_.pop_front();
  }
  for (void* lane : operands) static_cast<WaitingProducts*>(lane)->queue->fenced_ = false;
}

}  // namespace medusa::emulation
