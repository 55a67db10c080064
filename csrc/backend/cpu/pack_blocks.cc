#include "backend/cpu/pack_blocks.h"

#include <atomic>

#include "backend/cpu/packed_rows.h"
#include "backend/cpu/source_rows.h"
#include "base/check.h"
#include "tensor/block_codes.h"
#include "tensor/float8.h"

namespace medusa::cpu {
namespace {

// Block `index` of packed row n of a source.
BlockCodes source_block(const WeightSource& source, int64_t n, int64_t index) {
  const SourceRow from = locate(source, n);
  if (source.packed != nullptr) {
    return packed_block(*source.packed, source.packed->segments[0], from.row, index).read();
  }
  const HostTensor& part = *source.parts[from.part];
  const int64_t blocks = part.shape[1] / block_elements(part.dtype);
  const auto at = static_cast<size_t>(from.row * blocks + index);
  return read_block(static_cast<const char*>(part.data) + at * block_bytes(part.dtype), part.dtype);
}

bool finite(uint16_t half) { return (half & 0x7c00) != 0x7c00; }

void put_float8_row(const Float8Column& to, const HostTensor& part, int64_t row) {
  const int64_t width = part.shape[1];
  const auto* codes = static_cast<const uint8_t*>(part.data) + row * width;
  for (int64_t k = 0; k < width; ++k) to.code(k) = codes[k];
  for (int64_t k = 0; k < width; k += kScaleColumns) to.scale(k) = float8_scale(part, row, k);
}

}  // namespace

void pack_blocks(const WeightSource& source, const WeightSegment& segment, Weight& weight,
                 ThreadPool& pool) {
  const int64_t blocks = weight.in_features / block_elements(segment.dtype);
  std::atomic<int64_t> bad{-1};
  pool.parallel_for(segment.num_rows, kPanel, [&](int64_t first, int64_t last, int) {
    for (int64_t row = first; row < last; ++row) {
      for (int64_t i = 0; i < blocks; ++i) {
        const BlockCodes block = source_block(source, segment.first_row + row, i);
        if (!finite(block.scale) || !finite(block.minimum)) bad = segment.first_row + row;
        packed_block(weight, segment, segment.first_row + row, i).write(block);
      }
    }
  });
  check<ModelFormatError>(bad < 0, source.name, ": expected finite weights, found NaN or infinity ",
                          "in row ", bad.load());
}

void pack_float8(const WeightSource& source, const WeightSegment& segment, Weight& weight,
                 ThreadPool& pool) {
  std::atomic<int64_t> bad{-1};
  pool.parallel_for(segment.num_rows, kPanel, [&](int64_t first, int64_t last, int) {
    for (int64_t row = segment.first_row + first; row < segment.first_row + last; ++row) {
      const SourceRow from = locate(source, row);
      const HostTensor& part = *source.parts[from.part];
      if (!float8_row_fits_bf16(part, from.row)) bad = row;
      put_float8_row(packed_float8(weight, segment, row), part, from.row);
    }
  });
  check<ModelFormatError>(bad < 0, source.name, ": expected finite weights, found NaN or infinity ",
                          "in row ", bad.load());
}

}  // namespace medusa::cpu
