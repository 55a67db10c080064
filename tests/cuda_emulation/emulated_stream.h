#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>

struct CUstream_st;

namespace medusa::emulation {

/// Adds to the end of a stream's queue. Nothing of it happens before somebody waits for it, so that
/// a result read too early, or memory reused too early, is seen.
void enqueue(CUstream_st* stream, std::function<void()> work, bool early = false);

/// Throws Error if bytes around any of the emulated device's memory were written.
void check_device_memory();
/// One piece of the emulated device's memory.
struct DeviceRange {
  uintptr_t first = 0;
  size_t bytes = 0;
};
/// The one that holds `at`; without bytes if there is none.
DeviceRange device_range(const void* at);
/// Memory of the emulated device; what is asked for beyond it fails as it does on a GPU.
void set_device_memory(size_t bytes);
/// Kernels that streams have run so far, and how often the host waited for a stream.
size_t kernels_run();
size_t waits();

/// Of kernels_run(), those that may have started early.
size_t kernels_started_early();

/// Whether a device that a host looks at without waiting has done all that is queued by then;
/// else no more than what the host looks for. A GPU is somewhere between.
void set_runs_far_ahead(bool far);

/// Graphs so far, how many nodes the one that was launched last has, and how often loops went
/// round.
struct GraphUse {
  size_t made = 0, launched = 0, nodes = 0, rounds = 0;
};
GraphUse graph_use();

}  // namespace medusa::emulation
