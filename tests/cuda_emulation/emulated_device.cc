#include "device.h"
#include "emulated_stream.h"
#include "emulator.h"

namespace medusa::device {

std::vector<std::string> schedules() { return {"greedy", "reverse", "random"}; }
void choose_schedule(int index) {
  emulation::set_schedule(static_cast<emulation::Schedule>(index), 11);
}
void check_memory() { emulation::check_device_memory(); }

}  // namespace medusa::device
