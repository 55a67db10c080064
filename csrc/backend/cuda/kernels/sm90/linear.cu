// Products on compute capability 9.0, with weights of 16 bits and in GGUF's blocks.
#include "backend/cuda/kernels/sm90/linear_stream.cuh"

namespace medusa::cuda {

void linear_sm90(const Stream& stream, Format format, const LinearArgs& a) {
  switch (format) {
    case Format::f16:
      return launch_stream_rows<PlainWeights<f16>>(stream, a);
    case Format::q8_0:
      return launch_stream_rows<BlockWeights<8, false>>(stream, a);
    case Format::q4_0:
      return launch_stream_rows<BlockWeights<4, false>>(stream, a);
    case Format::q4_1:
      return launch_stream_rows<BlockWeights<4, true>>(stream, a);
    default:
      return launch_stream_rows<PlainWeights<bf16>>(stream, a);
  }
}

}  // namespace medusa::cuda
