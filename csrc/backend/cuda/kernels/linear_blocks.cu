// Products with weights that stay in GGUF's blocks of 32: Q8_0, Q4_0, Q4_1.
#include "backend/cuda/kernels/linear_tiles.cuh"

namespace medusa::cuda {

void linear_blocks(const Stream& stream, Format format, const LinearArgs& a) {
  if (format == Format::q8_0) return launch_rows<BlockWeights<8, false>>(stream, a);
  if (format == Format::q4_0) return launch_rows<BlockWeights<4, false>>(stream, a);
  launch_rows<BlockWeights<4, true>>(stream, a);
}

}  // namespace medusa::cuda
