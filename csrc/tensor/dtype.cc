#include "medusa/dtype.h"

#include <array>

#include "base/check.h"

namespace medusa {
namespace {

struct Format {
  DType dtype;
  std::string_view name;
  int64_t elements;
  size_t bytes;
};

constexpr std::array kFormats = {
    Format{DType::f32, "F32", 1, 4},       Format{DType::f16, "F16", 1, 2},
    Format{DType::bf16, "BF16", 1, 2},     Format{DType::i32, "I32", 1, 4},
    Format{DType::i8, "I8", 1, 1},         Format{DType::q8_0, "Q8_0", 32, 34},
    Format{DType::q4_0, "Q4_0", 32, 18},   Format{DType::q4_1, "Q4_1", 32, 20},
    Format{DType::q5_0, "Q5_0", 32, 22},   Format{DType::q5_1, "Q5_1", 32, 24},
    Format{DType::q2_k, "Q2_K", 256, 84},  Format{DType::q3_k, "Q3_K", 256, 110},
    Format{DType::q4_k, "Q4_K", 256, 144}, Format{DType::q5_k, "Q5_K", 256, 176},
    Format{DType::q6_k, "Q6_K", 256, 210}, Format{DType::f8_e4m3, "F8_E4M3", 1, 1},
};

const Format& format(DType dtype) { return kFormats[static_cast<size_t>(dtype)]; }

constexpr bool in_order() {
  for (size_t i = 0; i < kFormats.size(); ++i) {
    if (kFormats[i].dtype != static_cast<DType>(i)) return false;
  }
  return true;
}
static_assert(in_order(), "kFormats is indexed by DType");

}  // namespace

int64_t block_elements(DType dtype) { return format(dtype).elements; }
size_t block_bytes(DType dtype) { return format(dtype).bytes; }
std::string_view name(DType dtype) { return format(dtype).name; }

DType parse_dtype(std::string_view text) {
  for (const Format& f : kFormats) {
    if (f.name == text) return f.dtype;
  }
  std::string known;
  for (const Format& f : kFormats) known.append(known.empty() ? "" : ", ").append(f.name);
  throw ModelFormatError(medusa::text("dtype: expected one of ", known, "; found ", text));
}

}  // namespace medusa
