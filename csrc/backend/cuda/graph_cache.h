#pragma once

#include <cstdint>
#include <list>
#include <optional>

#include "backend/cuda/launch_list.h"
#include "backend/cuda/runtime.h"

namespace medusa::cuda {

/// Runs lists of work: as they are the first time, as one graph when an equal list comes again. The
/// graph of a list that says how it goes on is a loop.
class GraphCache {
 public:
  /// Without `enabled` every list runs as it is.
  explicit GraphCache(bool enabled) : enabled_(enabled) {}

  /// Leaves the list empty. Returns the equal list whose loop was started, valid until the next
  /// call, or null.
  const LaunchList* run(const Stream& stream, LaunchList& list);

 private:
  // Lists seen once, and graphs; the ones that lay unused for longest go.
  static constexpr int kMaxLists = 16, kMaxGraphs = 128;

  struct Entry {
    LaunchList list;
    std::optional<Graph> graph;
    int64_t used = 0;  // when, counted in runs
  };
  Entry* find(const LaunchList& list);
  const LaunchList* replay(const Stream& stream, Entry& entry);
  void remember(LaunchList& list);
  void make_room(bool graphs, int most);

  bool enabled_;
  int64_t runs_ = 0;
  std::list<Entry> entries_;
};

/// What MEDUSA_CUDA_GRAPHS says: 1 (or nothing) or 0. Throws InvalidArgument for anything else.
bool graphs_wanted();

}  // namespace medusa::cuda
