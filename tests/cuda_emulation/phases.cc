#include "phases.h"

#include <cstdint>
#include <cstring>
#include <utility>

#include "shared_memory.h"

namespace medusa::emulation {
namespace {

constexpr size_t kUnit = 16;

bool aligned(const void* p, size_t to) { return reinterpret_cast<uintptr_t>(p) % to == 0; }

}  // namespace

const std::vector<unsigned char>& Fetch::data() {
  if (data_.empty()) {
    data_.resize(bytes_);
    const auto* from = static_cast<const unsigned char*>(from_);
    for (size_t i = 0; i < bytes_; i += kUnit) std::memcpy(&data_[i], from + i, kUnit);
  }
  return data_;
}

void Phases::init(void* barrier, int arrivals, Where where) {
  check_shared(barrier, sizeof(uint64_t), "a barrier", where);
  if (!aligned(barrier, sizeof(uint64_t))) fail("a barrier that is not a multiple of 8", where);
  if (barriers_.contains(barrier)) fail("a barrier that is in use is initialised again", where);
  Barrier& b = barriers_[barrier];
  b.arrivals = b.missing = arrivals;
}

Phases::Barrier& Phases::find(const void* barrier, Where where) {
  const auto it = barriers_.find(barrier);
  if (it == barriers_.end()) fail("a barrier that was not initialised", where);
  return it->second;
}

void Phases::arrive(void* barrier, size_t bytes, bool of_peer, Where where) {
  Barrier& b = find(barrier, where);
  b.peers_arrive |= of_peer;
  if (b.missing == 0) fail("more arrivals than the barrier's phase has", where);
  --b.missing;
  b.bytes += static_cast<long long>(bytes);
}

// Until a copy lands its target holds what no kernel means.
void Phases::add_copy(void* to, std::shared_ptr<Fetch> what, size_t bytes, void* barrier,
                      Where where) {
  if (!aligned(to, kUnit) || !aligned(what->from(), kUnit) || bytes % kUnit != 0) {
    fail("a bulk copy whose addresses or size are not multiples of 16", where);
  }
  std::memset(to, 0xff, bytes);
  find(barrier, where).copies.push_back({to, std::move(what), where});
}

void Phases::land(Barrier& b, Where where) {
  for (const Copy& copy : b.copies) {
    const auto& data = copy.what->data();
    std::memcpy(copy.to, data.data(), data.size());
    b.bytes -= static_cast<long long>(data.size());
  }
  b.copies.clear();
  if (b.bytes < 0) fail("more bytes land than were announced to the barrier", where);
}

bool Phases::passed(const void* barrier, unsigned parity, bool of_peers, Where where) {
  Barrier& b = find(barrier, where);
  if (b.peers_arrive && !of_peers) fail("a wait that does not see other blocks' arrivals", where);
  if (b.phase % 2 == parity && b.missing == 0) {
    land(b, where);
    if (b.bytes == 0) {
      ++b.phase;
      b.missing = b.arrivals;
    }
  }
  return b.phase % 2 != parity;
}

void Phases::check_all_landed() const {
  for (const auto& [at, b] : barriers_) {
    if (!b.copies.empty()) fail("a bulk copy that nobody waits for", b.copies.front().where);
  }
}

}  // namespace medusa::emulation
