#include "backend/cuda/run_ahead.h"

#include <algorithm>
#include <atomic>
#include <cstring>

namespace medusa::cuda {
namespace {

void tell(Buffer& word, uint32_t value) {
  std::atomic_ref(*static_cast<uint32_t*>(word.data())).store(value, std::memory_order_release);
}

}  // namespace

StepRecord* RunAhead::record(int step) const {
  auto* records = static_cast<std::byte*>(records_.data());
  return reinterpret_cast<StepRecord*>(records + static_cast<size_t>(step) * stride_);
}

// Grows by powers of two, so that steps of many shapes have one ring.
RecordRing RunAhead::ring(const Stream& stream, size_t bytes_per_step) {
  if (bytes_per_step > stride_) {
    rest(stream);
    if (!halt_) halt_ = pinned_memory(sizeof(uint32_t));
    stride_ = std::bit_ceil(bytes_per_step);
    records_ = pinned_memory(stride_ * static_cast<size_t>(most_steps_));
  }
  return {static_cast<std::byte*>(records_.data()), stride_,
          static_cast<const uint32_t*>(halt_.data()), most_steps_};
}

void RunAhead::reset() {
  tell(halt_, 0);
  for (int step = 0; step < most_steps_; ++step) *record(step) = {};
  next_ = 0;
}

bool RunAhead::follow(const Stream& stream, const LaunchList& list, const void* inputs,
                      void* results) {
  if (list_ == nullptr) return false;
  if (list_->same_work(list) && take(stream, inputs, results)) return true;
  rest(stream);
  return false;
}

bool RunAhead::take(const Stream& stream, const void* inputs, void* results) {
  const StepRecord* step = record(next_);
  if (!stream.wait_until(&step->written, 1)) return false;
  const auto* bytes = reinterpret_cast<const std::byte*>(step);
  const AdvanceArgs& a = *list_->advance();
  if (std::memcmp(bytes + record_inputs(a.result_bytes), inputs, a.input_bytes) != 0) return false;
  std::memcpy(results, step + 1, a.result_bytes);
  ++next_;
  if (step->again == 0) list_ = nullptr;
  return true;
}

void RunAhead::rest(const Stream& stream) {
  if (list_ == nullptr) return;
  tell(halt_, 1);
  stream.synchronize();
  list_ = nullptr;
}

}  // namespace medusa::cuda
