#include "backend/cpu/check_source.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "backend/cpu/block_layout.h"
#include "backend/cpu/kernels.h"
#include "base/check.h"
#include "tensor/quants.h"

namespace medusa::cpu {
namespace {

constexpr int64_t kInFeaturesUnit = 32;

std::string shape_text(const std::vector<int64_t>& shape) {
  std::string out = "(";
  for (int64_t n : shape) out += (out.size() > 1 ? ", " : "") + std::to_string(n);
  return out + ")";
}

// Non-negative dimensions whose bytes are exactly those of the tensor.
void check_bytes(const char* source, const HostTensor& tensor) {
  int64_t elements = 1;
  for (int64_t n : tensor.shape) {
    const bool fits = n > 0 && elements <= INT64_MAX / 64 / n;
    check<ModelFormatError>(fits, source, ": impossible shape ", shape_text(tensor.shape));
    elements *= n;
  }
  const int64_t unit = block_elements(tensor.dtype), row = tensor.shape.back();
  check<ModelFormatError>(row % unit == 0, source, ": expected rows of a multiple of ", unit,
                          " elements for ", name(tensor.dtype), ", found shape ",
                          shape_text(tensor.shape));
  const size_t expected = static_cast<size_t>(elements / unit) * block_bytes(tensor.dtype);
  check<ModelFormatError>(tensor.data != nullptr && tensor.bytes == expected, source, ": expected ",
                          expected, " bytes for shape ", shape_text(tensor.shape), " of ",
                          name(tensor.dtype), ", found ", tensor.bytes);
}

// What a reader of F8_E4M3 has to have beside the codes.
void check_scales(const char* source, const HostTensor& part) {
  const BlockScales& s = part.scales;
  check<ModelFormatError>(s.values != nullptr, source, ": expected scales for ", name(part.dtype),
                          ", found none");
  const bool fits =
      s.rows > 0 && s.columns > 0 && (s.columns % kScaleColumns == 0 || s.columns >= part.shape[1]);
  check<ModelFormatError>(fits, source, ": expected scales of blocks of a multiple of ",
                          kScaleColumns, " columns or of whole rows, found blocks of ", s.rows,
                          " x ", s.columns);
  const int64_t count =
      (part.shape[0] + s.rows - 1) / s.rows * ((part.shape[1] + s.columns - 1) / s.columns);
  const bool good = std::all_of(s.values, s.values + count,
                                [](float scale) { return std::isfinite(scale) && scale > 0; });
  check<ModelFormatError>(good, source, ": expected positive finite scales, found another");
}

void check_part(const char* source, const HostTensor& part, int64_t in_features) {
  check<ModelFormatError>(is_weight_dtype(part.dtype) || part.dtype == DType::f8_e4m3, source,
                          ": expected a weight type, found ", name(part.dtype));
  check<ModelFormatError>(part.shape.size() == 2 && part.shape[1] == in_features, source,
                          ": expected shape (out_features, ", in_features, "), found ",
                          shape_text(part.shape));
  check_bytes(source, part);
  if (part.dtype == DType::f8_e4m3) check_scales(source, part);
}

void check_bias(const char* source, const HostTensor& bias, int64_t out_features) {
  check<ModelFormatError>(
      bias.shape == std::vector<int64_t>{out_features} && is_weight_dtype(bias.dtype), source,
      ": expected a bias of shape (", out_features, "), found ", shape_text(bias.shape), " of ",
      name(bias.dtype));
  check_bytes(source, bias);
}

void check_rows(const WeightSource& source, int64_t limit) {
  for (int32_t row : source.rows) {
    check<ModelFormatError>(row >= 0 && row < limit, source.name, ": expected rows below ", limit,
                            ", found ", row);
  }
}

void check_selected(const WeightSource& source) {
  if (source.rows.empty()) return;
  check(source.parts.size() == 1, source.name, ": rows can be selected of one part only");
  check_rows(source, source.parts[0]->shape[0]);
}

void check_packed(const WeightSource& source) {
  const bool alone = source.parts.empty() && source.biases.empty();
  check(alone && !source.rows.empty() && source.packed->segments.size() == 1, source.name,
        ": expected rows of a packed weight of one type, and nothing else");
  check_rows(source, source.packed->out_features);
}

void check_interleave(const WeightSource& source) {
  if (source.pack != Pack::interleave) return;
  const bool fits = source.parts.size() == 2 && source.rows.empty() &&
                    source.parts[0]->shape[0] == source.parts[1]->shape[0] &&
                    source.parts[0]->shape[0] % kBlock == 0;
  check<ModelFormatError>(fits, source.name, ": expected two parts with the same out_features, a ",
                          "multiple of ", kBlock, ", to interleave");
}

}  // namespace

void check_source(const WeightSource& source) {
  if (source.packed != nullptr) return check_packed(source);
  check(!source.parts.empty(), source.name, ": no parts to pack");
  check(source.biases.empty() || source.biases.size() == source.parts.size(), source.name,
        ": expected one bias per part, or none");
  check<ModelFormatError>(source.parts[0]->shape.size() == 2, source.name,
                          ": expected a matrix, found shape ", shape_text(source.parts[0]->shape));
  const int64_t in_features = source.parts[0]->shape[1];
  check<ModelFormatError>(in_features % kInFeaturesUnit == 0, source.name,
                          ": expected in_features to be a multiple of ", kInFeaturesUnit,
                          ", found ", in_features);
  for (size_t p = 0; p < source.parts.size(); ++p) {
    check_part(source.name, *source.parts[p], in_features);
    if (source.biases.empty() || source.biases[p] == nullptr) continue;
    check_bias(source.name, *source.biases[p], source.parts[p]->shape[0]);
  }
  check_selected(source);
  check_interleave(source);
}

}  // namespace medusa::cpu
