#pragma once

#include <functional>
#include <vector>

#include "backend/cuda/runtime.h"
#include "gpu/probes.h"
#include "measure.h"

namespace medusa::benchmark {

/// Times work on one stream by the device's own events. While the host queues, the device reads, so
/// that what is timed lies ready and none of it is the host's speed.
class DeviceClock {
 public:
  /// `bytes` of memory that it reads.
  explicit DeviceClock(size_t bytes)
      : memory_(cuda::device_memory(bytes)), sink_(cuda::device_memory(256)) {
    read_seconds_ = seconds([&] { read(memory_.bytes()); }, 1, 5);
  }

  const cuda::Stream& stream() const { return stream_; }
  size_t bytes() const { return memory_.bytes(); }
  /// GB/s of a read of all its memory.
  double read_rate() const { return static_cast<double>(bytes()) / read_seconds_ / 1e9; }
  /// Seconds of a read of so many bytes, at most bytes(), measured now.
  double read_of(size_t bytes, int repeats) {
    return seconds([&] { read(bytes / 16 * 16); }, 1, repeats);
  }

  /// Seconds of one call of `body`, the median over `repeats` rounds of `calls`. A body that waits
  /// for the device is timed as it is.
  double seconds(const std::function<void()>& body, int calls, int repeats) {
    const double queueing = seconds_of([&] { repeat(body, calls); });
    stream_.synchronize();
    std::vector<double> rounds;
    for (int r = 0; r < repeats; ++r) {
      keep_busy(queueing);
      start_.record(stream_);
      repeat(body, calls);
      end_.record(stream_);
      end_.synchronize();
      rounds.push_back(end_.milliseconds_since(start_) / 1e3 / calls);
    }
    return median(rounds);
  }

 private:
  static constexpr double kLongest = 0.02;  // of keeping the device busy, in seconds

  static void repeat(const std::function<void()>& body, int calls) {
    for (int i = 0; i < calls; ++i) body();
  }
  void read(size_t bytes) const {
    cuda::read_stream(stream_, memory_.data(), bytes, static_cast<uint32_t*>(sink_.data()));
  }
  void keep_busy(double seconds) const {
    if (read_seconds_ <= 0) return;  // it is being measured
    for (double t = 0; t < std::min(2 * seconds, kLongest); t += read_seconds_) read(bytes());
  }

  cuda::Stream stream_;
  cuda::Event start_, end_;
  Buffer memory_, sink_;
  double read_seconds_ = 0;
};

}  // namespace medusa::benchmark
