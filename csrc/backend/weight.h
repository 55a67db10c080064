#pragma once

#include <span>
#include <vector>

#include "medusa/model.h"
#include "tensor/buffer.h"
#include "tensor/tensor.h"

namespace medusa {

/// How host tensors become one packed matrix.
enum class Pack : uint8_t {
  concatenate,  // rows of the parts one after another (q, k, v)
  interleave,   // blocks of 16 rows of two parts in turn (gate, up), for Epilogue::silu_mul
};

/// Rows of a packed weight that share a type.
struct WeightSegment {
  DType dtype = DType::f32;
  int64_t first_row = 0;
  int64_t num_rows = 0;
  size_t offset = 0;  // into the storage, bytes
};

/// A matrix (out_features, in_features) packed for a backend's products, and its bias.
struct Weight {
  Buffer storage;
  Buffer bias;                          // (out_features) f32, in packed row order; empty: none
  std::vector<WeightSegment> segments;  // in row order, all rows
  int64_t out_features = 0;
  int64_t in_features = 0;

  size_t bytes() const { return storage.bytes() + bias.bytes(); }
};

/// What prepare_weight packs: `parts` that share in_features, or rows of a weight that is packed
/// already. `rows`, if any, selects rows of the single part (a trimmed vocabulary). Biases, where
/// given, match their parts.
struct WeightSource {
  std::vector<const HostTensor*> parts = {};
  std::vector<const HostTensor*> biases = {};  // empty, or one per part (null: zero)
  const Weight* packed = nullptr;              // instead of parts; `rows` are required
  std::span<const int32_t> rows = {};
  Pack pack = Pack::concatenate;
  const char* name = "";  // for error messages
};

}  // namespace medusa
