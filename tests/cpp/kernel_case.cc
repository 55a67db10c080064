#include "kernel_case.h"

namespace medusa {

std::vector<KernelCase> all_kernel_cases() {
  std::vector<KernelCase> cases;
  for (cpu::Isa isa : cpu::supported_isas()) {
    cases.push_back({&cpu::kernels(isa), ComputeType::float32});
    cases.push_back({&cpu::kernels(isa), ComputeType::bfloat16});
  }
  return cases;
}

}  // namespace medusa
