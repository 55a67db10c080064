#pragma once

#include <cstdint>

// Operands that asynchronous products read from shared memory (PTX ISA, "Matrix descriptor format"
// and "Swizzling modes" of wgmma). A tile has rows of 128 bytes, 64 elements along k, that start
// at a multiple of 1024; its pieces of 16 bytes change places, so that eight rows of one column
// lie in different banks.
namespace medusa::cuda {

inline constexpr int kSwizzledRow = 128;  // bytes

// Where piece `piece` of a row lies in its tile, in bytes.
constexpr int swizzled(int row, int piece) { return row * kSwizzledRow + (piece ^ row % 8) * 16; }

// Of the operand that starts at an address of shared memory: rows along the output, 16 elements of
// k of which the first may be any of the row's at a multiple of 16. Groups of eight rows follow one
// another.
constexpr uint64_t swizzled_operand(uint32_t shared_address) {
  constexpr uint64_t kGroup = 8 * kSwizzledRow / 16, kMode128 = 1;
  return (shared_address & 0x3ffff) >> 4 | uint64_t{1} << 16 | kGroup << 32 | kMode128 << 62;
}

}  // namespace medusa::cuda
