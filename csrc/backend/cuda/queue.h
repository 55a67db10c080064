#pragma once

#include <span>
#include <vector>

#include "backend/cuda/graph_cache.h"
#include "backend/cuda/kernel_set.h"
#include "backend/cuda/run_ahead.h"
#include "backend/cuda/transfer.h"
#include "base/function_ref.h"

namespace medusa::cuda {

/// A stream, and what verbs share on it. Inside replay() work is written down and handed over as a
/// whole, at the end or when the host asks for a result; outside it is queued at once.
class Queue {
 public:
  /// Null: a stream of its own.
  explicit Queue(void* borrowed, KernelSet set = KernelSet::portable, int steps_ahead = 0)
      : stream(borrowed == nullptr ? Stream() : Stream(static_cast<CUstream_st*>(borrowed))),
        kernels(set),
        ahead_(steps_ahead) {}

  Stream stream;
  const KernelSet kernels;
  DeviceScratch scratch, results;  // of the verb that runs
  DeviceScratch tickets;           // zeros between kernels

  /// Backend::replay.
  void replay(FunctionRef<void()> body);
  bool replays() const { return stream.record() != nullptr; }
  /// Of replay(): how many there were.
  int64_t step() const { return inputs_.step(); }

  /// Last in a replay(): says how what was written down goes on. `args` lack what is recorded;
  /// inputs are the first `input_bytes` that were put.
  void go_on(AdvanceArgs args, size_t input_bytes);
  int steps_ahead() const { return ahead_.most_steps(); }
  /// Bytes that were put so far in this replay(); 0 if they lie in several pieces.
  size_t input_bytes() const { return inputs_.so_far().bytes; }
  /// Ends the steps that run ahead.
  void rest() { ahead_.rest(stream); }

  /// A copy to the device; `from` may change afterwards.
  void upload(void* to, const void* from, size_t bytes);
  /// The same, to a place of the running replay that is good until its end.
  void* put(const void* from, size_t bytes) { return inputs_.put(from, bytes); }
  /// Waits; stays as it is until the next call.
  const void* fetch(const void* from, size_t bytes);
  /// The same, but there only after replay() inside of one.
  const void* land(const void* from, size_t bytes);

 private:
  void hand_over();
  bool follow();
  void stop();

  Staging staging_;
  StepInputs inputs_;
  Landing landing_;
  Buffer landed_;                 // of replay()'s downloads
  std::vector<Buffer> outgrown_;  // which a running replay has results in
  size_t landed_bytes_ = 0;
  struct Landed {
    void* to = nullptr;
    const void* from = nullptr;
    size_t bytes = 0;
  };
  std::vector<Landed> results_;  // of replay()'s downloads
  bool whole_ = true;            // nothing of the replay was handed over before its end
  LaunchList list_;
  GraphCache graphs_{graphs_wanted()};
  RunAhead ahead_;
};

/// A small host array's twin on the device. What has not changed since the last time, as from layer
/// to layer, is not copied again.
class Mirror {
 public:
  template <class T>
  const T* of(Queue& queue, std::span<const T> values) {
    const auto* first = reinterpret_cast<const char*>(values.data());
    return static_cast<const T*>(place(queue, std::span(first, values.size_bytes())));
  }

  /// The twin that the running replay has; null: none.
  template <class T>
  T* twin(const Queue& queue) const {
    return step_ == queue.step() ? static_cast<T*>(const_cast<void*>(known_)) : nullptr;
  }

 private:
  const void* place(Queue& queue, std::span<const char> bytes);

  DeviceScratch device_;
  const void* known_ = nullptr;  // where last_ has been copied to
  int64_t step_ = -1;            // the replay it was for; -1: none
  std::vector<char> last_;
};

}  // namespace medusa::cuda
