#include "backend/cpu/block_layout.h"
#include "backend/cpu/kernels.h"

#define MEDUSA_ISA generic
#define MEDUSA_WIDTH 4
#define MEDUSA_TILE_ROWS 2
#define MEDUSA_TILE_BLOCKS 1
#define MEDUSA_BLOCK_TILE_ROWS 2
#define MEDUSA_BLOCK_TILE_BLOCKS 1
#define MEDUSA_TILE_QUERIES 2
#include "backend/cpu/kernels_body.inc"

namespace medusa::cpu {

const KernelTable& generic_kernels() {
  static constexpr KernelTable table = generic::base_table();
  return table;
}

}  // namespace medusa::cpu
