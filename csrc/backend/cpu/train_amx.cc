#include <immintrin.h>

#include "backend/cpu/train_kernels.h"

#define MEDUSA_ISA amx
#define MEDUSA_WIDTH 16
#define MEDUSA_TILE_ROWS 6
#define MEDUSA_TILE_VECS 4
#include "backend/cpu/vec.h"

#include "backend/cpu/gemm.inc"
#include "backend/cpu/train.inc"

#include "backend/cpu/tiles.h"

#include "backend/cpu/tile_gemm.inc"

namespace medusa::cpu {

const TrainKernels& amx_train_kernels() {
  static constexpr TrainKernels table = amx::tile_train_table();
  return table;
}

}  // namespace medusa::cpu
