#include "backend/cpu/segments.h"

#include <algorithm>

#include "backend/cpu/source_rows.h"
#include "base/check.h"
#include "tensor/block_codes.h"

namespace medusa::cpu {
namespace {

// What one part is packed in.
DType packed_type(const HostTensor& part, DType compute, WeightFormat format) {
  const bool keep = format == WeightFormat::as_stored && compute == DType::bf16;
  const bool codes = block_format(part.dtype) != nullptr || part.dtype == DType::f8_e4m3;
  return keep && codes ? part.dtype : compute;
}

// Runs of parts of one type.
std::vector<WeightSegment> runs(const WeightSource& source, DType compute, WeightFormat format) {
  std::vector<WeightSegment> out;
  int64_t row = 0;
  for (const HostTensor* part : source.parts) {
    const DType dtype = packed_type(*part, compute, format);
    if (out.empty() || out.back().dtype != dtype) out.push_back({dtype, row, 0, 0});
    out.back().num_rows += part->shape[0];
    row += part->shape[0];
  }
  return out;
}

bool at_panels(const std::vector<WeightSegment>& segments) {
  return std::all_of(segments.begin(), segments.end(),
                     [](const WeightSegment& s) { return s.first_row % kPanel == 0; });
}

}  // namespace

int cache_type(DType dtype) { return dtype == DType::i8 ? kI8Cache : element_type(dtype); }

ElementType element_type(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return kF32;
    case DType::bf16:
      return kBf16;
    case DType::q8_0:
      return kQ8_0;
    case DType::q4_0:
      return kQ4_0;
    case DType::q4_1:
      return kQ4_1;
    case DType::q5_0:
      return kQ5_0;
    case DType::q5_1:
      return kQ5_1;
    case DType::q4_k:
      return kQ4_K;
    case DType::q5_k:
      return kQ5_K;
    case DType::q6_k:
      return kQ6_K;
    case DType::f8_e4m3:
      return kF8_E4M3;
    default:
      throw InvalidArgument(text("no product reads weights of ", name(dtype)));
  }
}

BlockLayout block_layout(DType dtype) {
  const BlockFormat& format = *block_format(dtype);
  return {format.bits, format.groups, format.minimum};
}

size_t panel_bytes(DType dtype, int64_t in_features) {
  if (dtype == DType::f8_e4m3) return static_cast<size_t>(float8_panel_bytes(in_features));
  if (block_format(dtype) == nullptr) {
    return static_cast<size_t>(kPanel * in_features) * block_bytes(dtype);
  }
  return static_cast<size_t>(in_features / block_elements(dtype) *
                             block_layout(dtype).record_bytes());
}

std::vector<WeightSegment> plan_segments(const WeightSource& source, DType compute,
                                         WeightFormat format) {
  const int64_t rows = count_rows(source);
  if (source.packed != nullptr) {
    const DType packed = source.packed->segments[0].dtype;
    return {{packed == DType::f8_e4m3 ? compute : packed, 0, rows, 0}};
  }
  std::vector<WeightSegment> segments = runs(source, compute, format);
  const bool mixed = segments.size() > 1;
  if (mixed && (source.pack == Pack::interleave || !at_panels(segments))) {
    segments = {{compute, 0, rows, 0}};
  }
  if (segments.size() == 1) segments[0].num_rows = rows;  // of all selected
  size_t offset = 0;
  for (WeightSegment& s : segments) {
    s.offset = offset;
    const auto panels = static_cast<size_t>((s.num_rows + kPanel - 1) / kPanel);
    offset += panels * panel_bytes(s.dtype, source.parts[0]->shape[1]);
  }
  return segments;
}

const WeightSegment& segment_of(const Weight& weight, int64_t row) {
  const auto after = std::find_if(weight.segments.begin(), weight.segments.end(),
                                  [&](const WeightSegment& s) { return s.first_row > row; });
  return *(after - 1);
}

}  // namespace medusa::cpu
