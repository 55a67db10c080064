#include "kernel_case.h"

namespace medusa {

namespace cpu {
const KernelTable& amx_emulated_kernels();
}  // namespace cpu

std::vector<KernelCase> all_kernel_cases() {
  std::vector<KernelCase> cases;
  for (cpu::Isa isa : cpu::supported_isas()) {
    cases.push_back({&cpu::kernels(isa), ComputeType::float32});
    cases.push_back({&cpu::kernels(isa), ComputeType::bfloat16});
  }
  cases.push_back({&cpu::amx_emulated_kernels(), ComputeType::bfloat16});
  return cases;
}

}  // namespace medusa
