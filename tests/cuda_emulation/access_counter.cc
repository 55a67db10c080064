#include "access_counter.h"

#include <array>
#include <cstdint>
#include <cstring>
#include <unordered_map>

#include "emulated_stream.h"
#include "emulator.h"

namespace medusa::emulation {
namespace {

constexpr uintptr_t kSector = 32, kUnit = 256;

class AccessCounter {
 public:
  Traffic found;

  void note(const void* at, size_t bytes, bool write) {
    const auto first = reinterpret_cast<uintptr_t>(at);
    if (!on_device(first)) return;
    const uint64_t block = running_block();
    for (uintptr_t i = first / kSector; i <= (first + bytes - 1) / kSector; ++i) {
      touch(sectors_[i], block, write);
    }
  }

 private:
  struct Sector {
    bool read = false, written = false;
    uint64_t block = 0;  // the last that touched it
  };

  struct Answer {
    uintptr_t unit = 0;
    bool on_device = false;
  };

  void touch(Sector& sector, uint64_t block, bool write) {
    if (write ? !sector.written : !sector.read && !sector.written) found.moved += kSector;
    (write ? sector.written : sector.read) = true;
    if (sector.block != block) found.asked += kSector;
    sector.block = block;
  }

  // Allocations and the guards around them are multiples of kUnit apart, so that units of it are
  // either theirs or not.
  bool on_device(uintptr_t at) {
    const uintptr_t unit = at / kUnit;
    Answer& known = known_[unit % known_.size()];
    if (known.unit != unit) {
      known = {unit, device_range(reinterpret_cast<const void*>(at)).bytes > 0};
    }
    return known.on_device;
  }

  // A number for each block of each launch, from 1 on.
  static uint64_t running_block() {
    const auto [x, y, z] = block_index;
    const uint64_t block = (uint64_t{z} * grid_size.y + y) * grid_size.x + x;
    return (uint64_t{kernels_run()} << 40 | block) + 1;
  }

  std::unordered_map<uintptr_t, Sector> sectors_;
  std::array<Answer, 1 << 14> known_{};
};

AccessCounter* counter = nullptr;

void note(const void* at, size_t bytes, bool write) {
  if (counter != nullptr && bytes > 0) counter->note(at, bytes, write);
}

}  // namespace

Traffic traffic_of(const std::function<void()>& work) {
  AccessCounter of_work;
  counter = &of_work;
  work();
  counter = nullptr;
  return of_work.found;
}

}  // namespace medusa::emulation

// What GCC and Clang call before every access.
extern "C" {

void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}

#define MEDUSA_TSAN_ACCESS(bytes)                                                            \
  void __tsan_read##bytes(void* at) { medusa::emulation::note(at, bytes, false); }           \
  void __tsan_write##bytes(void* at) { medusa::emulation::note(at, bytes, true); }           \
  void __tsan_unaligned_read##bytes(void* at) { medusa::emulation::note(at, bytes, false); } \
  void __tsan_unaligned_write##bytes(void* at) { medusa::emulation::note(at, bytes, true); }

MEDUSA_TSAN_ACCESS(1)
MEDUSA_TSAN_ACCESS(2)
MEDUSA_TSAN_ACCESS(4)
MEDUSA_TSAN_ACCESS(8)
MEDUSA_TSAN_ACCESS(16)

void __tsan_read_range(void* at, size_t bytes) { medusa::emulation::note(at, bytes, false); }
void __tsan_write_range(void* at, size_t bytes) { medusa::emulation::note(at, bytes, true); }
// Of the guards of local statics.
unsigned char __tsan_atomic8_load(const volatile unsigned char* at, int) {
  return __atomic_load_n(at, __ATOMIC_ACQUIRE);
}
// Of shared pointers.
int __tsan_atomic32_fetch_add(volatile int* at, int value, int) {
  return __atomic_fetch_add(at, value, __ATOMIC_ACQ_REL);
}
void* __tsan_memcpy(void* to, const void* from, size_t bytes) {
  medusa::emulation::note(from, bytes, false);
  medusa::emulation::note(to, bytes, true);
  return std::memcpy(to, from, bytes);
}
void* __tsan_memset(void* to, int value, size_t bytes) {
  medusa::emulation::note(to, bytes, true);
  return std::memset(to, value, bytes);
}
}
