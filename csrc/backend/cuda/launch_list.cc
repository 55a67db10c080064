#include "backend/cuda/launch_list.h"

#include <algorithm>

#include "backend/cuda/runtime.h"

namespace medusa::cuda {

void LaunchList::clear() {
  items_.clear();
  uploads_.clear();
  advance_.reset();
  kept_.clear();
  chunk_ = used_ = 0;
}

void* LaunchList::reserve(size_t bytes) {
  constexpr size_t kAlignment = alignof(std::max_align_t);
  bytes = (bytes + kAlignment - 1) / kAlignment * kAlignment;
  if (!chunks_.empty() && used_ + bytes > kChunk) {
    ++chunk_;
    used_ = 0;
  }
  if (chunk_ == chunks_.size()) chunks_.push_back(std::make_unique<std::byte[]>(kChunk));
  void* place = chunks_[chunk_].get() + used_;
  used_ += bytes;
  return place;
}

void LaunchList::run(const Stream& stream) const {
  upload(stream);
  for (const Item& item : items_) item.run(item.work, stream);
}

void LaunchList::upload(const Stream& stream) const {
  for (const Upload& upload : uploads_) stream.copy_to_device(upload.to, upload.from, upload.bytes);
}

void LaunchList::compute(const Stream& stream) const {
  for (const Item& item : items_) {
    if (!item.to_host) item.run(item.work, stream);
  }
}

bool LaunchList::operator==(const LaunchList& other) const {
  return uploads_ == other.uploads_ && advance_ == other.advance_ && same_work(other);
}

// Two items of one function hold the same type.
bool LaunchList::same_work(const LaunchList& other) const {
  return std::ranges::equal(items_, other.items_, [](const Item& a, const Item& b) {
    return a.run == b.run && a.same(a.work, b.work);
  });
}

}  // namespace medusa::cuda
