#pragma once

#include <memory>

#include "backend/cpu/isa.h"
#include "backend/cpu/train_kernels.h"
#include "backend/train_backend.h"

namespace medusa {
namespace cpu {

const TrainKernels& train_kernels(Isa isa);

}  // namespace cpu

/// The CPU back end of training with a given table of kernels: one that this machine can run.
std::shared_ptr<TrainBackend> make_cpu_train_backend(const cpu::TrainKernels& kernels,
                                                     ComputeType compute_type, int num_threads);

}  // namespace medusa
