#include "copy_queue.h"

#include <cstdint>
#include <cstring>

#include "shared_memory.h"

namespace medusa::emulation {
namespace {

constexpr size_t kBytes = 16;

bool aligned(const void* p) { return reinterpret_cast<uintptr_t>(p) % kBytes == 0; }

}  // namespace

// Until a copy lands its target holds what no kernel means.
void CopyQueue::add(void* to_shared, const void* from, Where where) {
  check_shared(to_shared, kBytes, "an asynchronous copy", where);
  if (!aligned(to_shared) || !aligned(from)) {
    fail("an asynchronous copy between addresses that are not multiples of 16", where);
  }
  std::memset(to_shared, 0xff, kBytes);
  copies_.push_back({to_shared, from, where, open_group_});
}

void CopyQueue::wait(int groups_left) {
  const int done = open_group_ - groups_left;
  for (; !copies_.empty() && copies_.front().group < done; copies_.pop_front()) {
    const Copy& copy = copies_.front();
    if (copy.from == nullptr) {
      std::memset(copy.to, 0, kBytes);
    } else {
      std::memcpy(copy.to, copy.from, kBytes);
    }
    set_hidden(copy.to, true);
    hidden_.push_back(copy.to);
  }
}

void CopyQueue::show_to_products() {
  for (const void* at : hidden_) set_hidden(at, false);
  hidden_.clear();
}

void CopyQueue::check_all_landed() const {
  if (!copies_.empty()) fail("an asynchronous copy that nobody waits for", copies_.front().where);
}

}  // namespace medusa::emulation
