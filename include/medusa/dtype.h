#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace medusa {

/// Element types of tensors. The block formats are GGUF's (ggml-quants); f8_e4m3, without
/// infinities, means something with scales beside it alone (HostTensor::scales).
enum class DType : uint8_t {
  f32,
  f16,
  bf16,
  i32,
  i8,
  q8_0,
  q4_0,
  q4_1,
  q5_0,
  q5_1,
  q2_k,
  q3_k,
  q4_k,
  q5_k,
  q6_k,
  f8_e4m3,
};

/// Elements that share one block; 1 for plain types.
int64_t block_elements(DType dtype);
/// Bytes of one block.
size_t block_bytes(DType dtype);
/// "F32", "BF16", "Q4_K", ... as GGUF and safetensors spell them.
std::string_view name(DType dtype);
/// Inverse of name(); throws ModelFormatError for anything else.
DType parse_dtype(std::string_view text);

}  // namespace medusa
