#include <immintrin.h>

#include "backend/cpu/block_layout.h"
#include "backend/cpu/kernels.h"

#define MEDUSA_ISA amx
#define MEDUSA_WIDTH 16
#define MEDUSA_TILE_ROWS 12
#define MEDUSA_TILE_BLOCKS 2
#define MEDUSA_BLOCK_TILE_ROWS 6
#define MEDUSA_BLOCK_TILE_BLOCKS 2
#define MEDUSA_TILE_QUERIES 6
#include "backend/cpu/kernels_body.inc"

#include "backend/cpu/attention_pairs.inc"

#include "backend/cpu/tiles.h"

#include "backend/cpu/tile_product.inc"

#include "backend/cpu/tile_block_product.inc"

#include "backend/cpu/tile_table.inc"

namespace medusa::cpu {

namespace {
constexpr KernelTable table_with_pairs() {
  KernelTable t = amx::tile_table();
  t.attention[kI8Cache] = amx::attention<amx::PairAttention<int8_t>>;
  return t;
}
}  // namespace

const KernelTable& amx_kernels() {
  static constexpr KernelTable table = table_with_pairs();
  return table;
}

}  // namespace medusa::cpu
