#include "backend/cuda/queue.h"

#include <algorithm>

#include "base/check.h"

namespace medusa::cuda {
namespace {

struct CopyOnDevice {
  void* to;
  const void* from;
  size_t bytes;
  void operator()(const Stream& stream) const { stream.copy_on_device(to, from, bytes); }
  bool operator==(const CopyOnDevice&) const = default;
};

struct CopyToHost {
  static constexpr bool kToHost = true;
  void* to;
  const void* from;
  size_t bytes;
  void operator()(const Stream& stream) const { stream.copy_to_host(to, from, bytes); }
  bool operator==(const CopyToHost&) const = default;
};

}  // namespace

void Queue::replay(FunctionRef<void()> body) {
  struct Recording {
    Queue& queue;
    ~Recording() { queue.stop(); }
  } const recording{*this};
  if (inputs_.outgrown()) rest();
  inputs_.begin();
  landed_bytes_ = 0;
  outgrown_.clear();
  results_.clear();
  whole_ = true;
  stream.record_to(&list_);
  body();
  if (follow()) return;
  hand_over();
  if (!ahead_.under_way()) return stream.synchronize();
  check<DeviceError>(ahead_.take(stream, inputs_.so_far().pinned, results_[0].to),
                     "the GPU's loop of steps has ended without its first step");
}

// Whether this replay is the next step of a loop.
bool Queue::follow() {
  const void* inputs = inputs_.so_far().pinned;
  return inputs != nullptr && results_.size() == 1 &&
         ahead_.follow(stream, list_, inputs, results_[0].to);
}

// The list may hold memory that what was handed over still uses, so it waits.
void Queue::hand_over() {
  rest();
  inputs_.add_copies(list_);
  if (!list_.repeatable()) {
    list_.run(stream);
    stream.synchronize();
    list_.clear();
    return;
  }
  if (list_.advance()) ahead_.reset();
  if (const LaunchList* loop = graphs_.run(stream, list_)) ahead_.begin(loop);
}

void Queue::go_on(AdvanceArgs args, size_t input_bytes) {
  const StepInputs::Piece all = inputs_.so_far();
  if (!whole_ || all.bytes == 0 || results_.size() != 1) return;
  args.results = results_[0].from;
  args.result_bytes = results_[0].bytes;
  args.inputs = all.device;
  args.input_bytes = input_bytes;
  args.ring = ahead_.ring(stream, record_bytes(args.result_bytes, args.input_bytes));
  list_.go_on(args);
}

void Queue::stop() {
  stream.record_to(nullptr);
  list_.clear();
}

void Queue::upload(void* to, const void* from, size_t bytes) {
  if (replays()) {
    list_.add(CopyOnDevice{to, inputs_.put(from, bytes), bytes});
  } else {
    staging_.copy(stream, to, from, bytes);
  }
}

const void* Queue::fetch(const void* from, size_t bytes) {
  if (replays()) {
    hand_over();
    whole_ = false;
  }
  return landing_.fetch(stream, from, bytes);
}

const void* Queue::land(const void* from, size_t bytes) {
  if (!replays()) return landing_.fetch(stream, from, bytes);
  const size_t needed = (bytes + 255) / 256 * 256;
  if (landed_bytes_ + needed > landed_.bytes()) {
    Buffer larger = pinned_memory(std::max(2 * landed_.bytes(), std::max<size_t>(needed, 4096)));
    std::swap(landed_, larger);
    outgrown_.push_back(std::move(larger));
    landed_bytes_ = 0;
  }
  void* to = static_cast<char*>(landed_.data()) + landed_bytes_;
  landed_bytes_ += needed;
  if (bytes > 0) {
    list_.add(CopyToHost{to, from, bytes});
    results_.push_back({to, from, bytes});
  }
  return to;
}

const void* Mirror::place(Queue& queue, std::span<const char> bytes) {
  const bool replays = queue.replays();
  const int64_t step = replays ? queue.step() : -1;
  void* device =
      replays ? nullptr : device_.reserve<char>(queue.stream, static_cast<int64_t>(bytes.size()));
  const bool there = step == step_ && known_ != nullptr && (replays || device == known_);
  if (there && std::ranges::equal(bytes, last_)) return known_;
  last_.assign(bytes.begin(), bytes.end());
  step_ = step;
  if (replays) {
    known_ = queue.put(bytes.data(), bytes.size());
  } else {
    known_ = device;
    if (!bytes.empty()) queue.upload(device, bytes.data(), bytes.size());
  }
  return known_;
}

}  // namespace medusa::cuda
