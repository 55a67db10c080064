#include "backend/cpu/train_kernels.h"

#define MEDUSA_ISA generic
#define MEDUSA_WIDTH 4
#define MEDUSA_TILE_ROWS 4
#define MEDUSA_TILE_VECS 2
#include "backend/cpu/vec.h"

#include "backend/cpu/gemm.inc"
#include "backend/cpu/train.inc"

namespace medusa::cpu {

const TrainKernels& generic_train_kernels() {
  static constexpr TrainKernels table = generic::train_table();
  return table;
}

}  // namespace medusa::cpu
