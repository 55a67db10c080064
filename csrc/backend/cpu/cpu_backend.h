#pragma once

#include <memory>

#include "backend/backend.h"
#include "backend/cpu/isa.h"

namespace medusa {

/// The CPU back end with a given table of kernels: one that this machine can run.
std::shared_ptr<Backend> make_cpu_backend(const cpu::KernelTable& kernels,
                                          const LoadOptions& options);

/// As make_cpu_backend(options), for one instruction set of supported_isas().
std::shared_ptr<Backend> make_cpu_backend(cpu::Isa isa, const LoadOptions& options);

}  // namespace medusa
