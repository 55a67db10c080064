#pragma once

#include <string>
#include <vector>

namespace medusa {

/// Names of the instruction sets this machine can run, best first; MEDUSA_CPU_ISA takes one.
std::vector<std::string> cpu_isas();

/// Why no GPU can be used, with advice; empty: one can.
std::string why_no_cuda();

}  // namespace medusa
