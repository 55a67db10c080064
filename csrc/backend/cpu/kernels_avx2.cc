#include <immintrin.h>

#include "backend/cpu/block_layout.h"
#include "backend/cpu/kernels.h"

#define MEDUSA_ISA avx2
#define MEDUSA_WIDTH 8
#define MEDUSA_TILE_ROWS 4
#define MEDUSA_TILE_BLOCKS 1
#define MEDUSA_BLOCK_TILE_ROWS 3
#define MEDUSA_BLOCK_TILE_BLOCKS 1
#define MEDUSA_TILE_QUERIES 2
#include "backend/cpu/kernels_body.inc"

namespace medusa::cpu {

const KernelTable& avx2_kernels() {
  static constexpr KernelTable table = avx2::base_table();
  return table;
}

}  // namespace medusa::cpu
