#include "shared_memory.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <unordered_set>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
static void __asan_poison_memory_region(const void*, size_t) {}
static void __asan_unpoison_memory_region(const void*, size_t) {}
#endif

namespace medusa::emulation {
namespace {

constexpr size_t kGuard = 128;
constexpr unsigned char kGuardByte = 0xc3, kPoison = 0xff;

unsigned long long launch = 0;
std::vector<SharedStorage*> in_use;  // by this launch
uint32_t next_address;               // of the next to be used
std::unordered_set<const void*> hidden;
std::optional<SharedStorage> dynamic;

}  // namespace

SharedStorage::SharedStorage(const char* name, size_t bytes, Where where)
    : name_(name),
      bytes_(bytes),
      where_(where),
      memory_(new unsigned char[(bytes + 15) / 16 * 16 + 2 * kGuard]),
      data_(memory_.get() + kGuard) {
  std::memset(memory_.get(), kGuardByte, kGuard);
  std::memset(memory_.get() + kGuard + bytes, kGuardByte, kGuard);
  __asan_poison_memory_region(memory_.get(), kGuard);
  __asan_poison_memory_region(memory_.get() + kGuard + bytes, kGuard);
}

SharedStorage::~SharedStorage() {
  __asan_unpoison_memory_region(memory_.get(), bytes_ + 2 * kGuard);
}

void SharedStorage::use(unsigned alignment) {
  if (launch_ == launch) return;
  launch_ = launch;
  address_ = (next_address + 2 * alignment - 1) / (2 * alignment) * (2 * alignment) + alignment;
  next_address = address_ + static_cast<uint32_t>(bytes_);
  in_use.push_back(this);
  poison();
}

void SharedStorage::poison() const { std::memset(data_, kPoison, bytes_); }

void SharedStorage::check_guards() const {
  __asan_unpoison_memory_region(memory_.get(), bytes_ + 2 * kGuard);
  const auto intact = [](const unsigned char* guard) {
    return std::all_of(guard, guard + kGuard, [](unsigned char c) { return c == kGuardByte; });
  };
  const bool good = intact(memory_.get()) && intact(memory_.get() + kGuard + bytes_);
  __asan_poison_memory_region(memory_.get(), kGuard);
  __asan_poison_memory_region(memory_.get() + kGuard + bytes_, kGuard);
  if (!good) fail(std::string("something was written outside of shared array ") + name_, where_);
}

void SharedStorage::fail_index(long long index, size_t count) const {
  fail("index " + std::to_string(index) + " is outside of shared array " + name_ + "[" +
           std::to_string(count) + "]",
       where_);
}

SharedStorage& dynamic_shared(Where) { return *dynamic; }

void check_shared(const void* at, size_t bytes, const char* what, Where where) {
  const auto* first = static_cast<const char*>(at);
  for (const SharedStorage* storage : in_use) {
    const auto* data = static_cast<const char*>(storage->data());
    if (first >= data && first + bytes <= data + storage->bytes()) return;
  }
  fail(std::string(what) + " of " + std::to_string(bytes) + " bytes outside of shared memory",
       where);
}

uint32_t shared_address(const void* at, Where where) {
  check_shared(at, 1, "an address", where);
  const auto* place = static_cast<const char*>(at);
  for (const SharedStorage* storage : in_use) {
    const auto* data = static_cast<const char*>(storage->data());
    if (place < data || place >= data + storage->bytes()) continue;
    return storage->address() + static_cast<uint32_t>(place - data);
  }
  return 0;
}

const void* at_shared_address(uint32_t address, size_t bytes, const char* what, Where where) {
  for (const SharedStorage* storage : in_use) {
    const uint64_t first = storage->address();
    if (address < first || address + bytes > first + storage->bytes()) continue;
    return static_cast<const char*>(storage->data()) + (address - first);
  }
  fail(std::string(what) + " of " + std::to_string(bytes) + " bytes outside of shared memory",
       where);
}

void set_hidden(const void* at, bool is) {
  if (is) {
    hidden.insert(at);
  } else {
    hidden.erase(at);
  }
}
bool is_hidden(const void* at) { return hidden.contains(at); }

void begin_launch(size_t dynamic_bytes) {
  ++launch;
  next_address = 0;
  in_use.clear();
  dynamic.emplace("(dynamic)", dynamic_bytes, Where::current());
}

void begin_block() {
  hidden.clear();
  for (const SharedStorage* storage : in_use) storage->poison();
}

void end_block() {
  for (const SharedStorage* storage : in_use) storage->check_guards();
}

}  // namespace medusa::emulation
