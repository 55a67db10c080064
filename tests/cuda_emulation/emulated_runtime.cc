// backend/cuda/runtime.h over memory of the host, and streams that are lists of things to do.
#include <algorithm>
#include <chrono>
#include <cstring>
#include <deque>
#include <exception>
#include <iterator>
#include <map>
#include <new>
#include <set>
#include <utility>
#include <vector>

#include "backend/cuda/runtime.h"
#include "base/check.h"
#include "emulated_stream.h"
#include "emulator.h"

struct CUgraphExec_st {
  std::vector<std::function<void()>> nodes;
  bool loops = false;
  unsigned again = 1;  // of a loop: what its handle leads to
};
struct CUstream_st {
  std::deque<std::function<void()>> queue;
  CUgraphExec_st* capture = nullptr;  // what is queued goes there
  void add(std::function<void()> work) {
    capture != nullptr ? capture->nodes.push_back(std::move(work))
                       : queue.push_back(std::move(work));
  }
  CUstream_st();
  ~CUstream_st();
};
struct CUevent_st {
  CUstream_st* stream = nullptr;
  std::chrono::steady_clock::time_point reached;
};

namespace medusa {
namespace emulation {
namespace {

constexpr size_t kGuard = 256, kDefaultMemory = size_t{4} << 30;
constexpr unsigned char kGuardByte = 0xa5;

bool runs_far_ahead = false;
size_t memory = kDefaultMemory, used = 0, kernels = 0, early_kernels = 0, times_waited = 0;
GraphUse graphs;
std::map<const void*, size_t> allocations;
std::set<CUstream_st*> streams;
std::exception_ptr unseen;  // what went wrong where nothing could be thrown

unsigned char* guard_below(const void* data) {
  return static_cast<unsigned char*>(const_cast<void*>(data)) - kGuard;
}

bool intact(const unsigned char* guard) {
  return std::all_of(guard, guard + kGuard, [](unsigned char c) { return c == kGuardByte; });
}

void* take(size_t bytes) {
  auto* below =
      static_cast<unsigned char*>(::operator new(bytes + 2 * kGuard, std::align_val_t{256}));
  std::memset(below, kGuardByte, kGuard);
  std::memset(below + kGuard, 0, bytes);
  std::memset(below + kGuard + bytes, kGuardByte, kGuard);
  allocations[below + kGuard] = bytes;
  used += bytes;
  return below + kGuard;
}

void run_next(CUstream_st* stream) {
  const auto work = std::move(stream->queue.front());
  stream->queue.pop_front();
  work();
}

void drain(CUstream_st* stream) {
  while (!stream->queue.empty()) run_next(stream);
}

// Ahead of all that is queued: the loop's body, and the question whether it comes again.
void run_loop(CUstream_st* stream, const CUgraphExec_st* loop) {
  if (loop->again == 0) return;
  ++graphs.rounds;
  stream->queue.push_front([=] { run_loop(stream, loop); });
  stream->queue.insert(stream->queue.begin(), loop->nodes.begin(), loop->nodes.end());
}

// Memory is not given back while something queued may use it.
void drain_all() noexcept {
  try {
    for (CUstream_st* stream : streams) drain(stream);
  } catch (...) {
    unseen = std::current_exception();
  }
}

void give_back(void* data, size_t bytes) noexcept {
  drain_all();
  allocations.erase(data);
  used -= bytes;
  ::operator delete(guard_below(data), std::align_val_t{256});
}

void give_back_pinned(void* data, size_t) noexcept {
  drain_all();
  ::operator delete(data, std::align_val_t{256});
}

}  // namespace

void enqueue(CUstream_st* stream, std::function<void()> work, bool early) {
  stream->add([work = std::move(work), early] {
    ++kernels;
    early_kernels += early;
    work();
  });
}

void check_device_memory() {
  for (const auto& [data, bytes] : allocations) {
    const auto* above = static_cast<const unsigned char*>(data) + bytes;
    if (!intact(guard_below(data)) || !intact(above)) {
      throw Error("something was written outside of " + std::to_string(bytes) +
                  " bytes of device memory");
    }
  }
}

DeviceRange device_range(const void* at) {
  const auto next = allocations.upper_bound(at);
  if (next == allocations.begin()) return {};
  const auto& [data, bytes] = *std::prev(next);
  const auto first = reinterpret_cast<uintptr_t>(data);
  return reinterpret_cast<uintptr_t>(at) - first < bytes ? DeviceRange{first, bytes}
                                                         : DeviceRange{};
}

void set_device_memory(size_t bytes) { memory = bytes; }
size_t kernels_run() { return kernels; }
size_t kernels_started_early() { return early_kernels; }
size_t waits() { return times_waited; }
void set_runs_far_ahead(bool far) { runs_far_ahead = far; }
GraphUse graph_use() { return graphs; }

}  // namespace emulation

namespace cuda {

int device_count() { return 1; }
std::string why_no_device() { return ""; }
DeviceInfo describe(int) { return {"emulated", 9, 0}; }
void use_device(int device) {
  check<DeviceError>(device == 0, "the emulated runtime has device 0 alone, found ", device);
}
size_t free_memory() { return emulation::memory - std::min(emulation::memory, emulation::used); }

Buffer device_memory(size_t bytes) {
  check<OutOfMemory>(bytes <= free_memory(), "the emulated GPU has no room left for ", bytes,
                     " bytes");
  return {emulation::take(bytes), bytes, emulation::give_back};
}
Buffer managed_memory(size_t bytes) { return device_memory(bytes); }
Buffer pinned_memory(size_t bytes) {
  return {::operator new(bytes, std::align_val_t{256}), bytes, emulation::give_back_pinned};
}

Stream::Stream() : handle_(new CUstream_st) {}
Stream::~Stream() {
  if (!borrowed_) delete handle_;
}
void Stream::copy_to_device(void* to, const void* from, size_t bytes) const {
  handle_->add([=] { std::memcpy(to, from, bytes); });
}
void Stream::copy_to_host(void* to, const void* from, size_t bytes) const {
  copy_to_device(to, from, bytes);
}
void Stream::copy_on_device(void* to, const void* from, size_t bytes) const {
  copy_to_device(to, from, bytes);
}
void Stream::clear(void* to, size_t bytes) const {
  handle_->add([=] { std::memset(to, 0, bytes); });
}
void Stream::synchronize() const {
  ++emulation::times_waited;
  emulation::drain(handle_);
  if (emulation::unseen) std::rethrow_exception(std::exchange(emulation::unseen, nullptr));
}

bool Stream::wait_until(const uint32_t* word, uint32_t value) const {
  while (!handle_->queue.empty() && (emulation::runs_far_ahead || *word != value)) {
    emulation::run_next(handle_);
  }
  return *word == value;
}

Graph Graph::loop(const Stream& stream, FunctionRef<void(LoopHandle)> body) {
  Graph graph(stream,
              [&] { body(reinterpret_cast<LoopHandle>(&stream.handle()->capture->again)); });
  graph.handle_->loops = true;
  return graph;
}

Graph::Graph(const Stream& stream, FunctionRef<void()> work) : handle_(new CUgraphExec_st) {
  stream.handle()->capture = handle_;
  try {
    work();
  } catch (...) {
    stream.handle()->capture = nullptr;
    delete handle_;
    throw;
  }
  stream.handle()->capture = nullptr;
  num_nodes_ = handle_->nodes.size();
  ++emulation::graphs.made;
}
Graph::~Graph() {
  if (handle_ != nullptr) emulation::drain_all();
  delete handle_;
}
void Graph::launch(const Stream& stream) const {
  ++emulation::graphs.launched;
  emulation::graphs.nodes = num_nodes_;
  if (handle_->loops) {
    stream.handle()->add([to = stream.handle(), loop = handle_] {
      loop->again = 1;
      emulation::run_loop(to, loop);
    });
    return;
  }
  for (const auto& node : handle_->nodes) stream.handle()->add(node);
}

Event::Event() : handle_(new CUevent_st) {}
Event::~Event() { delete handle_; }
void Event::record(const Stream& stream) const {
  handle_->stream = stream.handle();
  stream.handle()->add([event = handle_] { event->reached = std::chrono::steady_clock::now(); });
}
void Event::synchronize() const { emulation::drain(handle_->stream); }
double Event::milliseconds_since(const Event& earlier) const {
  const std::chrono::duration<double, std::milli> passed =
      handle_->reached - earlier.handle_->reached;
  return passed.count();
}

}  // namespace cuda
}  // namespace medusa

CUstream_st::CUstream_st() { medusa::emulation::streams.insert(this); }
CUstream_st::~CUstream_st() { medusa::emulation::streams.erase(this); }
