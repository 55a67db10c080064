#include "medusa/device.h"

#include "backend/cpu/isa.h"

namespace medusa {

std::vector<std::string> cpu_isas() {
  std::vector<std::string> names;
  for (const cpu::Isa isa : cpu::supported_isas()) names.emplace_back(cpu::name(isa));
  return names;
}

}  // namespace medusa
