#pragma once

#include <map>
#include <vector>

#include "emulator.h"

namespace medusa::emulation {

/// The barriers of a block that count arrivals and bytes. A phase ends when all arrivals have come
/// and, landed at the moment somebody waits, all bytes that were announced.
class Phases {
 public:
  void clear() { barriers_.clear(); }
  void init(void* barrier, int arrivals, Where where);
  void arrive(void* barrier, size_t bytes, Where where);
  void add_copy(void* to, const void* from, size_t bytes, void* barrier, Where where);
  /// Whether the phase of this parity has ended.
  bool passed(const void* barrier, unsigned parity, Where where);
  void check_all_landed() const;

 private:
  struct Copy {
    void* to;
    const void* from;
    size_t bytes;
    Where where;
  };
  struct Barrier {
    int arrivals = 0, missing = 0;
    long long bytes = 0;  // announced and not landed
    unsigned phase = 0;
    std::vector<Copy> copies;
  };
  Barrier& find(const void* barrier, Where where);
  static void land(Barrier& b, Where where);

  std::map<const void*, Barrier> barriers_;
};

}  // namespace medusa::emulation
