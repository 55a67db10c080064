#include "backend/cpu/packed_rows.h"

#include "backend/cpu/segments.h"
#include "tensor/float8.h"
#include "tensor/quants.h"

namespace medusa::cpu {
namespace {

char* panel_of(const Weight& weight, const WeightSegment& segment, int64_t row) {
  const auto panel = static_cast<size_t>((row - segment.first_row) / kPanel);
  return static_cast<char*>(weight.storage.data()) + segment.offset +
         panel * panel_bytes(segment.dtype, weight.in_features);
}

void read_blocks(float* out, const Weight& weight, const WeightSegment& segment, int64_t row) {
  const int64_t elements = block_elements(segment.dtype);
  for (int64_t i = 0; i < weight.in_features / elements; ++i) {
    const BlockCodes block = packed_block(weight, segment, row, i).read();
    widen_block(out + i * elements, block, *block_format(segment.dtype));
  }
}

// Rounded as products round.
void read_float8(float* out, const Weight& weight, const WeightSegment& segment, int64_t row) {
  const Float8Column from = packed_float8(weight, segment, row);
  for (int64_t k = 0; k < weight.in_features; ++k) {
    out[k] = to_float(to_bf16(float8_to_float(from.code(k)) * from.scale(k)));
  }
}

}  // namespace

BlockColumn packed_block(const Weight& weight, const WeightSegment& segment, int64_t row,
                         int64_t index) {
  const BlockLayout layout = block_layout(segment.dtype);
  char* record = panel_of(weight, segment, row) + index * layout.record_bytes();
  return {record, layout, (row - segment.first_row) % kPanel};
}

Float8Column packed_float8(const Weight& weight, const WeightSegment& segment, int64_t row) {
  char* panel = panel_of(weight, segment, row);
  return {reinterpret_cast<uint8_t*>(panel),
          reinterpret_cast<float*>(panel + float8_code_bytes(weight.in_features)),
          (row - segment.first_row) % kPanel};
}

void read_row(float* out, const Weight& weight, int64_t row) {
  const WeightSegment& segment = segment_of(weight, row);
  const char* panel = panel_of(weight, segment, row);
  const int64_t k = weight.in_features, lane = (row - segment.first_row) % kPanel;
  if (segment.dtype == DType::f32) {
    const auto* from = reinterpret_cast<const float*>(panel) + lane;
    for (int64_t i = 0; i < k; ++i) out[i] = from[i * kPanel];
  } else if (segment.dtype == DType::bf16) {
    const auto* from = reinterpret_cast<const bf16*>(panel) + 2 * lane;
    for (int64_t i = 0; i < k; ++i) out[i] = to_float(from[i / 2 * 2 * kPanel + i % 2]);
  } else if (segment.dtype == DType::f8_e4m3) {
    read_float8(out, weight, segment, row);
  } else {
    read_blocks(out, weight, segment, row);
  }
}

}  // namespace medusa::cpu
