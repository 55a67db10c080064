#include <immintrin.h>

#include "backend/cpu/block_layout.h"
#include "backend/cpu/kernels.h"

#define MEDUSA_ISA avx512_bf16
#define MEDUSA_WIDTH 16
#define MEDUSA_TILE_ROWS 12
#define MEDUSA_TILE_BLOCKS 2
#define MEDUSA_BLOCK_TILE_ROWS 6
#define MEDUSA_BLOCK_TILE_BLOCKS 2
#define MEDUSA_TILE_QUERIES 6
#include "backend/cpu/kernels_body.inc"

#include "backend/cpu/attention_pairs.inc"

#include "backend/cpu/dot_product.inc"

namespace medusa::cpu {

const KernelTable& avx512_bf16_kernels() {
  static constexpr KernelTable table = avx512_bf16::dot_table();
  return table;
}

}  // namespace medusa::cpu
