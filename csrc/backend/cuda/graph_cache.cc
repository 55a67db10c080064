#include "backend/cuda/graph_cache.h"

#include <algorithm>
#include <cstdlib>
#include <string_view>
#include <utility>

#include "base/check.h"

namespace medusa::cuda {
namespace {

Graph graph_of(const Stream& stream, const LaunchList& list) {
  return Graph(stream, [&] { list.run(stream); });
}

Graph loop_of(const Stream& stream, const LaunchList& list) {
  return Graph::loop(stream, [&](LoopHandle loop) {
    list.compute(stream);
    advance(stream, *list.advance(), loop);
  });
}

}  // namespace

const LaunchList* GraphCache::run(const Stream& stream, LaunchList& list) {
  if (list.empty()) return nullptr;
  ++runs_;
  const LaunchList* loop = nullptr;
  if (Entry* known = enabled_ ? find(list) : nullptr) {
    loop = replay(stream, *known);
  } else {
    list.run(stream);
    if (enabled_ && list.repeatable()) remember(list);
  }
  list.clear();
  return loop;
}

GraphCache::Entry* GraphCache::find(const LaunchList& list) {
  const auto it = std::ranges::find_if(entries_, [&](const Entry& e) { return e.list == list; });
  return it == entries_.end() ? nullptr : &*it;
}

const LaunchList* GraphCache::replay(const Stream& stream, Entry& entry) {
  const LaunchList& list = entry.list;
  const bool loops = list.advance().has_value();
  if (!entry.graph) entry.graph.emplace(loops ? loop_of(stream, list) : graph_of(stream, list));
  entry.used = runs_;
  if (loops) list.upload(stream);
  entry.graph->launch(stream);
  return loops ? &list : nullptr;
}

void GraphCache::remember(LaunchList& list) {
  make_room(true, kMaxGraphs);
  make_room(false, kMaxLists);
  entries_.push_back({std::exchange(list, {}), {}, runs_});
}

void GraphCache::make_room(bool graphs, int most) {
  const auto is_one = [&](const Entry& e) { return e.graph.has_value() == graphs; };
  if (std::ranges::count_if(entries_, is_one) < most) return;
  auto oldest = entries_.end();
  for (auto it = entries_.begin(); it != entries_.end(); ++it) {
    if (is_one(*it) && (oldest == entries_.end() || it->used < oldest->used)) oldest = it;
  }
  entries_.erase(oldest);
}

bool graphs_wanted() {
  const char* value = std::getenv("MEDUSA_CUDA_GRAPHS");
  const std::string_view wanted = value == nullptr || *value == '\0' ? "1" : value;
  check(wanted == "0" || wanted == "1", "MEDUSA_CUDA_GRAPHS: expected 0 or 1, found ", wanted);
  return wanted == "1";
}

}  // namespace medusa::cuda
