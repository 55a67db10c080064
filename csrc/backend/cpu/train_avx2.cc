#include <immintrin.h>

#include "backend/cpu/train_kernels.h"

#define MEDUSA_ISA avx2
#define MEDUSA_WIDTH 8
#define MEDUSA_TILE_ROWS 6
#define MEDUSA_TILE_VECS 2
#include "backend/cpu/vec.h"

#include "backend/cpu/gemm.inc"
#include "backend/cpu/train.inc"

namespace medusa::cpu {

const TrainKernels& avx2_train_kernels() {
  static constexpr TrainKernels table = avx2::train_table();
  return table;
}

}  // namespace medusa::cpu
