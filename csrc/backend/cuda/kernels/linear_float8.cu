// Products with weights that stay F8_E4M3 codes.
#include "backend/cuda/kernels/linear_tiles.cuh"

namespace medusa::cuda {

void linear_float8(const Stream& stream, const LinearArgs& a) {
  launch_rows<Float8Weights>(stream, a);
}

}  // namespace medusa::cuda
