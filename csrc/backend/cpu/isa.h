#pragma once

#include <span>
#include <string_view>

#include "backend/cpu/kernels.h"

namespace medusa::cpu {

/// Instruction sets, best first.
enum class Isa { amx, avx512_bf16, avx512, avx2, generic };

std::string_view name(Isa isa);
const KernelTable& kernels(Isa isa);

/// What the processor, the operating system and this process's permissions allow, best first.
std::span<const Isa> supported_isas();

/// The one MEDUSA_CPU_ISA names, else the best. Throws DeviceError when that one is unknown or
/// impossible here.
Isa choose_isa();

}  // namespace medusa::cpu
