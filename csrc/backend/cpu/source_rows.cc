#include "backend/cpu/source_rows.h"

#include "backend/cpu/kernels.h"

namespace medusa::cpu {

int64_t count_rows(const WeightSource& source) {
  if (!source.rows.empty()) return static_cast<int64_t>(source.rows.size());
  int64_t rows = 0;
  for (const HostTensor* part : source.parts) rows += part->shape[0];
  return rows;
}

SourceRow locate(const WeightSource& source, int64_t n) {
  if (!source.rows.empty()) return {0, source.rows[static_cast<size_t>(n)]};
  if (source.pack == Pack::interleave) {
    const int64_t block = n / kBlock;
    return {static_cast<size_t>(block % 2), block / 2 * kBlock + n % kBlock};
  }
  size_t part = 0;
  for (; n >= source.parts[part]->shape[0]; ++part) n -= source.parts[part]->shape[0];
  return {part, n};
}

}  // namespace medusa::cpu
