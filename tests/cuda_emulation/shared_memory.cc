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

constexpr unsigned char kGuardByte = 0xc3, kPoison = 0xff;

unsigned long long launch = 0;
std::vector<SharedStorage*> in_use;  // by this launch
uint32_t next_address;               // of the next to be used
int blocks = 1, running = 0;         // of a cluster; the rank of the one that runs
std::unordered_set<const void*> hidden;
std::optional<SharedStorage> dynamic;

}  // namespace

SharedStorage::SharedStorage(const char* name, size_t bytes, Where where)
    : name_(name), bytes_(bytes), where_(where) {}

SharedStorage::~SharedStorage() {
  for (const auto& memory : copies_)
    __asan_unpoison_memory_region(memory.get(), bytes_ + 2 * kGuard);
}

void SharedStorage::add_copy() {
  copies_.emplace_back(new unsigned char[(bytes_ + 15) / 16 * 16 + 2 * kGuard]);
  unsigned char* memory = copies_.back().get();
  for (unsigned char* guard : {memory, memory + kGuard + bytes_}) {
    std::memset(guard, kGuardByte, kGuard);
    __asan_poison_memory_region(guard, kGuard);
  }
}

void* SharedStorage::data() const { return data(running); }

void SharedStorage::use(unsigned alignment) {
  if (launch_ == launch) return;
  launch_ = launch;
  address_ = (next_address + 2 * alignment - 1) / (2 * alignment) * (2 * alignment) + alignment;
  next_address = address_ + static_cast<uint32_t>(bytes_);
  in_use.push_back(this);
  while (copies_.size() < static_cast<size_t>(blocks)) add_copy();
  poison();
}

void SharedStorage::poison() const {
  for (int rank = 0; rank < blocks; ++rank) std::memset(data(rank), kPoison, bytes_);
}

bool SharedStorage::intact(const unsigned char* memory) const {
  const auto whole = [](const unsigned char* guard) {
    __asan_unpoison_memory_region(guard, kGuard);
    const bool good =
        std::all_of(guard, guard + kGuard, [](unsigned char c) { return c == kGuardByte; });
    __asan_poison_memory_region(guard, kGuard);
    return good;
  };
  return whole(memory) && whole(memory + kGuard + bytes_);
}

void SharedStorage::check_guards() const {
  for (const auto& memory : copies_) {
    if (intact(memory.get())) continue;
    fail(std::string("something was written outside of shared array ") + name_, where_);
  }
}

void SharedStorage::fail_index(long long index, size_t count) const {
  fail("index " + std::to_string(index) + " is outside of shared array " + name_ + "[" +
           std::to_string(count) + "]",
       where_);
}

SharedStorage& dynamic_shared(Where) { return *dynamic; }

namespace {

// The array of the running block that holds these bytes; null: none does.
const SharedStorage* array_of(const void* at, size_t bytes) {
  const auto* first = static_cast<const char*>(at);
  for (const SharedStorage* storage : in_use) {
    const auto* data = static_cast<const char*>(storage->data());
    if (first >= data && first + bytes <= data + storage->bytes()) return storage;
  }
  return nullptr;
}

size_t offset_in(const SharedStorage& array, const void* at) {
  return static_cast<size_t>(static_cast<const char*>(at) - static_cast<const char*>(array.data()));
}

}  // namespace

void check_shared(const void* at, size_t bytes, const char* what, Where where) {
  if (array_of(at, bytes) != nullptr) return;
  fail(std::string(what) + " of " + std::to_string(bytes) + " bytes outside of shared memory",
       where);
}

void* at_peer(const void* at, size_t bytes, int rank, const char* what, Where where) {
  check_shared(at, bytes, what, where);
  const SharedStorage& array = *array_of(at, bytes);
  return static_cast<char*>(array.data(rank)) + offset_in(array, at);
}

uint32_t shared_address(const void* at, Where where) {
  check_shared(at, 1, "an address", where);
  const SharedStorage& array = *array_of(at, 1);
  return array.address() + static_cast<uint32_t>(offset_in(array, at));
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

void begin_launch(size_t dynamic_bytes, int cluster_blocks) {
  ++launch;
  next_address = 0;
  in_use.clear();
  blocks = cluster_blocks;
  running = 0;
  dynamic.emplace("(dynamic)", dynamic_bytes, Where::current());
}

void begin_cluster() {
  hidden.clear();
  for (const SharedStorage* storage : in_use) storage->poison();
}

void end_cluster() {
  for (const SharedStorage* storage : in_use) storage->check_guards();
}

void use_shared_memory_of(int rank) { running = rank; }

}  // namespace medusa::emulation
