#pragma once

#include <cstdint>

#include "backend/cpu/block_layout.h"
#include "backend/cpu/kernels.h"
#include "tensor/block_codes.h"

namespace medusa::cpu {

/// One column of a panel's record: a block of one row of the matrix, packed or to be packed.
class BlockColumn {
 public:
  BlockColumn(void* record, const BlockLayout& layout, int64_t column)
      : record_(static_cast<uint8_t*>(record)), layout_(layout), column_(column) {}

  void write(const BlockCodes& b) const {
    write16(record_ + 2 * column_, b.scale);
    if (layout_.minimum) write16(record_ + kLine + 2 * column_, b.minimum);
    for (int g = 0; g < layout_.groups; ++g) {
      for (int i = 0; i < 32; ++i) write_code(g, i, b.codes[32 * g + i]);
      if (layout_.groups > 1) write_factors(g, b);
    }
  }

  BlockCodes read() const {
    BlockCodes b{};
    b.scale = read16(record_ + 2 * column_);
    if (layout_.minimum) b.minimum = read16(record_ + kLine + 2 * column_);
    for (int g = 0; g < layout_.groups; ++g) {
      for (int i = 0; i < 32; ++i) b.codes[32 * g + i] = read_code(g, i);
      if (layout_.groups > 1) read_factors(g, b);
    }
    return b;
  }

 private:
  static void write16(uint8_t* p, uint16_t value) {
    p[0] = static_cast<uint8_t>(value);
    p[1] = static_cast<uint8_t>(value >> 8);
  }
  static uint16_t read16(const uint8_t* p) { return static_cast<uint16_t>(p[0] | p[1] << 8); }

  uint8_t* group(int g) const {
    return record_ + layout_.header_bytes() + g * layout_.group_bytes();
  }
  // The byte of element i in line `index` of those that begin at `lines`.
  uint8_t* byte(uint8_t* lines, int index, int i) const {
    const int64_t block = column_ / kBlock, lane = column_ % kBlock;
    return lines + (index * kPanelBlocks + block) * kLine + lane * 4 + i % 4;
  }
  uint8_t* low(int g, int i) const {
    const int quad = i / 4;
    return byte(group(g), layout_.bits == 8 ? quad : quad % 4, i);
  }
  uint8_t* high(int g, int i) const {
    return byte(group(g) + layout_.low_bytes(), layout_.bits == 6 ? i / 16 : 0, i);
  }
  static int low_shift(int i) { return i / 16 * 4; }
  int high_shift(int i) const { return layout_.bits == 6 ? i / 4 % 4 * 2 : i / 4; }

  void write_code(int g, int i, uint8_t code) const {
    if (layout_.bits == 8) {
      *low(g, i) = code;
      return;
    }
    *low(g, i) |= static_cast<uint8_t>((code & 15) << low_shift(i));
    if (layout_.bits > 4) *high(g, i) |= static_cast<uint8_t>(code >> 4 << high_shift(i));
  }
  uint8_t read_code(int g, int i) const {
    if (layout_.bits == 8) return *low(g, i);
    int code = *low(g, i) >> low_shift(i) & 15;
    const int high_mask = (1 << (layout_.bits - 4)) - 1;
    if (layout_.bits > 4) code |= (*high(g, i) >> high_shift(i) & high_mask) << 4;
    return static_cast<uint8_t>(code);
  }

  uint8_t* factors(int g) const {
    return group(g) + layout_.low_bytes() + layout_.high_bytes() + column_;
  }
  void write_factors(int g, const BlockCodes& b) const {
    factors(g)[0] = layout_.minimum ? b.scales[g] : b.scales[2 * g];
    factors(g)[kPanel] = layout_.minimum ? b.minimums[g] : b.scales[2 * g + 1];
  }
  void read_factors(int g, BlockCodes& b) const {
    (layout_.minimum ? b.scales[g] : b.scales[2 * g]) = factors(g)[0];
    (layout_.minimum ? b.minimums[g] : b.scales[2 * g + 1]) = factors(g)[kPanel];
  }

  uint8_t* record_;
  BlockLayout layout_;
  int64_t column_;
};

}  // namespace medusa::cpu
