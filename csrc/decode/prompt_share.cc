#include "decode/prompt_share.h"

#include <algorithm>

namespace medusa {
namespace {

int missing(const PlanEntry& entry) {
  return entry.sequence->size() - entry.committed - entry.num_rows;
}

PlanEntry* nearest_to_its_end(std::span<PlanEntry> prompts) {
  PlanEntry* nearest = nullptr;
  for (PlanEntry& entry : prompts) {
    if (missing(entry) == 0) continue;
    if (nearest == nullptr || missing(entry) < missing(*nearest)) nearest = &entry;
  }
  return nearest;
}

}  // namespace

void share_rows(std::span<PlanEntry> prompts, int rows) {
  int by_arrival = (rows + 1) / 2;
  for (PlanEntry& entry : prompts) {
    entry.num_rows = std::min(missing(entry), by_arrival);
    by_arrival -= entry.num_rows;
    rows -= entry.num_rows;
  }
  while (rows > 0) {
    PlanEntry* next = nearest_to_its_end(prompts);
    if (next == nullptr) return;
    const int taken = std::min(missing(*next), rows);
    next->num_rows += taken;
    rows -= taken;
  }
}

}  // namespace medusa
