// The AMX product of training over emulated tiles, on any machine.
#include "backend/cpu/train_kernels.h"

#define MEDUSA_ISA amx_emulated
#define MEDUSA_WIDTH 4
#define MEDUSA_TILE_ROWS 2
#define MEDUSA_TILE_VECS 4
#include "backend/cpu/vec.h"

#include "backend/cpu/gemm.inc"
#include "backend/cpu/train.inc"

#include "emulated_tiles.h"

#include "backend/cpu/tile_gemm.inc"

namespace medusa::cpu {

const TrainKernels& amx_emulated_train_kernels();
const TrainKernels& amx_emulated_train_kernels() {
  static constexpr TrainKernels table = amx_emulated::tile_train_table();
  return table;
}

}  // namespace medusa::cpu
