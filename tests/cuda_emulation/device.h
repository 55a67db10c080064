#pragma once

#include <string>
#include <vector>

// What tests ask of the device under test beside the back end's own verbs. Linked twice: with the
// emulated device, and with a real one.
namespace medusa::device {

/// Orders in which a block's threads may be made to take turns: three, or one of a GPU, its own.
std::vector<std::string> schedules();
/// One of them, by index.
void choose_schedule(int index);
/// Throws where memory outside of what was allocated has been written, if the device can tell.
void check_memory();

}  // namespace medusa::device
