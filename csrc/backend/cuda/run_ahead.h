#pragma once

#include <cstddef>

#include "backend/cuda/advance.h"
#include "backend/cuda/launch_list.h"
#include "backend/cuda/runtime.h"
#include "tensor/buffer.h"

namespace medusa::cuda {

/// A loop of steps that the device takes by itself, and the host that follows it, step by step:
/// what it asks for is compared with what the device has done, work and inputs, byte for byte.
class RunAhead {
 public:
  /// `most_steps`: of one loop; 0: there are none.
  explicit RunAhead(int most_steps) : most_steps_(most_steps) {}

  int most_steps() const { return most_steps_; }
  /// Where a loop's steps are recorded. Ends one under way if there is too little room.
  RecordRing ring(const Stream& stream, size_t bytes_per_step);
  /// Before a loop is launched, when none is under way.
  void reset();
  /// The loop that was launched: `list`, which stays as it is until rest().
  void begin(const LaunchList* list) { list_ = list; }

  bool under_way() const { return list_ != nullptr; }

  /// Whether the loop's next step is what `list` does with `inputs`, as laid out on the host. Waits
  /// for it; its results are in `results` then. Otherwise the loop has ended.
  bool follow(const Stream& stream, const LaunchList& list, const void* inputs, void* results);
  /// The same of a step whose work is known to be the loop's; where it is not, the loop is as it
  /// was.
  bool take(const Stream& stream, const void* inputs, void* results);
  /// Ends the loop. Waits.
  void rest(const Stream& stream);

 private:
  StepRecord* record(int step) const;

  const int most_steps_;
  Buffer records_, halt_;  // pinned
  size_t stride_ = 0;
  const LaunchList* list_ = nullptr;  // of the loop under way
  int next_ = 0;                      // step that is to be followed
};

}  // namespace medusa::cuda
