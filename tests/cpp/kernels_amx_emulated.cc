// The AMX product body over emulated tiles, on any machine.
#include "backend/cpu/block_layout.h"
#include "backend/cpu/kernels.h"

#define MEDUSA_ISA amx_emulated
#define MEDUSA_WIDTH 4
#define MEDUSA_TILE_ROWS 2
#define MEDUSA_TILE_BLOCKS 1
#define MEDUSA_BLOCK_TILE_ROWS 2
#define MEDUSA_BLOCK_TILE_BLOCKS 1
#define MEDUSA_TILE_QUERIES 2
#include "backend/cpu/kernels_body.inc"

#include "emulated_tiles.h"

#include "backend/cpu/tile_product.inc"

#include "backend/cpu/tile_block_product.inc"

#include "backend/cpu/tile_table.inc"

namespace medusa::cpu {

const KernelTable& amx_emulated_kernels();
const KernelTable& amx_emulated_kernels() {
  static constexpr KernelTable table = amx_emulated::tile_table();
  return table;
}

}  // namespace medusa::cpu
