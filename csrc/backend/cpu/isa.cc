#include "backend/cpu/isa.h"

#include <cstdlib>
#include <string>
#include <vector>

#include "base/check.h"

#if defined(__x86_64__)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#endif

namespace medusa::cpu {
namespace {

struct Entry {
  Isa isa;
  std::string_view name;
  const KernelTable& (*kernels)();
  bool (*supported)();
};

bool always() { return true; }

#if defined(__x86_64__)

struct Cpuid {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  Cpuid(unsigned leaf, unsigned subleaf) {
    __get_cpuid_count(leaf, subleaf, &eax, &ebx, &ecx, &edx);
  }
};

bool has(unsigned reg, std::initializer_list<int> bits) {
  for (int bit : bits) {
    if ((reg >> bit & 1) == 0) return false;
  }
  return true;
}

// Register state the operating system saves (XCR0); 0 without OSXSAVE.
unsigned saved_state() {
  if (!has(Cpuid(1, 0).ecx, {27})) return 0;
  unsigned low, high;
  asm("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return low;
}

constexpr unsigned kAvxState = 0x6, kAvx512State = 0xe6, kTileState = 0x60000;

bool saves(unsigned state) { return (saved_state() & state) == state; }

bool has_avx2() {
  return saves(kAvxState) && has(Cpuid(1, 0).ecx, {12, 28, 29}) && has(Cpuid(7, 0).ebx, {5});
}

// F, DQ, BW, VL.
bool has_avx512() {
  return has_avx2() && saves(kAvx512State) && has(Cpuid(7, 0).ebx, {16, 17, 30, 31});
}

// Every processor with bf16 has VNNI.
bool has_avx512_bf16() {
  return has_avx512() && has(Cpuid(7, 0).ecx, {11}) && has(Cpuid(7, 1).eax, {5});
}

// Linux gives tile registers to processes that ask (Documentation/arch/x86/xstate.rst).
bool tile_permission() {
#if defined(__linux__)
  constexpr long kRequestXcompPerm = 0x1023, kTileData = 18;
  return syscall(SYS_arch_prctl, kRequestXcompPerm, kTileData) == 0;
#else
  return false;
#endif
}

bool has_amx() {
  return has_avx512_bf16() && has(Cpuid(7, 0).edx, {22, 24, 25}) && saves(kTileState) &&
         tile_permission();
}

#endif

constexpr Entry kEntries[] = {
#if defined(__x86_64__)
    {Isa::amx, "amx", amx_kernels, has_amx},
    {Isa::avx512_bf16, "avx512_bf16", avx512_bf16_kernels, has_avx512_bf16},
    {Isa::avx512, "avx512", avx512_kernels, has_avx512},
    {Isa::avx2, "avx2", avx2_kernels, has_avx2},
#endif
    {Isa::generic, "generic", generic_kernels, always},
};

const Entry& entry(Isa isa) {
  for (const Entry& e : kEntries) {
    if (e.isa == isa) return e;
  }
  throw DeviceError("this build has no kernels for the instruction set asked for");
}

std::string names_of(std::span<const Isa> isas) {
  std::string all;
  for (Isa isa : isas) all.append(all.empty() ? "" : ", ").append(name(isa));
  return all;
}

}  // namespace

std::string_view name(Isa isa) { return entry(isa).name; }

const KernelTable& kernels(Isa isa) { return entry(isa).kernels(); }

std::span<const Isa> supported_isas() {
  static const std::vector<Isa> supported = [] {
    std::vector<Isa> isas;
    for (const Entry& e : kEntries) {
      if (e.supported()) isas.push_back(e.isa);
    }
    return isas;
  }();
  return supported;
}

Isa choose_isa() {
  const char* wanted = std::getenv("MEDUSA_CPU_ISA");
  if (wanted == nullptr || *wanted == '\0') return supported_isas().front();
  for (Isa isa : supported_isas()) {
    if (name(isa) == wanted) return isa;
  }
  throw DeviceError(text("MEDUSA_CPU_ISA: expected one of ", names_of(supported_isas()),
                         " on this machine; found ", wanted));
}

}  // namespace medusa::cpu
