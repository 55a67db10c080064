#include "backend/backbone_train_backend.h"
#include "backend/backend.h"
#include "medusa/device.h"
#include "medusa/error.h"

// Linked where the build has no CUDA.
namespace medusa {

std::string why_no_cuda() {
  return "this build has no CUDA back end: configure with -DMEDUSA_CUDA=ON, which needs nvcc and "
         "the CUDA runtime, or use device \"cpu\"";
}

std::shared_ptr<Backend> make_cuda_backend(const LoadOptions&, int) {
  throw DeviceError(why_no_cuda());
}

std::shared_ptr<BackboneTrainBackend> make_cuda_backbone_train_backend(ComputeType, int) {
  throw DeviceError(why_no_cuda());
}

std::shared_ptr<TrainBackend> make_cuda_train_backend(ComputeType, int) {
  throw DeviceError(why_no_cuda());
}

}  // namespace medusa
