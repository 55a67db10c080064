#pragma once

#include <cstddef>
#include <cstdint>

#include "backend/cuda/runtime.h"

// What a device does at best: reading, and doing nothing.
namespace medusa::cuda {

/// Reads `bytes`, a multiple of 16, once; `sink` is one word that is practically never written.
void read_stream(const Stream& stream, const void* data, size_t bytes, uint32_t* sink);
void do_nothing(const Stream& stream);

}  // namespace medusa::cuda
