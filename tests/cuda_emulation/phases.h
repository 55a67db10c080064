#pragma once

#include <map>
#include <memory>
#include <vector>

#include "emulator.h"

namespace medusa::emulation {

/// What one bulk copy brings, to one block or to several. Read when the first of them waits for it.
class Fetch {
 public:
  Fetch(const void* from, size_t bytes) : from_(from), bytes_(bytes) {}
  const void* from() const { return from_; }
  const std::vector<unsigned char>& data();

 private:
  const void* from_;
  size_t bytes_;
  std::vector<unsigned char> data_;
};

/// The barriers of a cluster's blocks that count arrivals and bytes. A phase ends when all arrivals
/// have come and, landed at the moment somebody waits, all bytes that were announced.
class Phases {
 public:
  void clear() { barriers_.clear(); }
  void init(void* barrier, int arrivals, Where where);
  /// `of_peer`: by a thread of another block.
  void arrive(void* barrier, size_t bytes, bool of_peer, Where where);
  void add_copy(void* to, std::shared_ptr<Fetch> what, size_t bytes, void* barrier, Where where);
  /// Whether the phase of this parity has ended. `of_peers`: the wait sees other blocks' arrivals.
  bool passed(const void* barrier, unsigned parity, bool of_peers, Where where);
  void check_all_landed() const;

 private:
  struct Copy {
    void* to;
    std::shared_ptr<Fetch> what;
    Where where;
  };
  struct Barrier {
    int arrivals = 0, missing = 0;
    long long bytes = 0;  // announced and not landed
    unsigned phase = 0;
    bool peers_arrive = false;
    std::vector<Copy> copies;
  };
  Barrier& find(const void* barrier, Where where);
  static void land(Barrier& b, Where where);

  std::map<const void*, Barrier> barriers_;
};

}  // namespace medusa::emulation
