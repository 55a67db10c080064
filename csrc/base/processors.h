#pragma once

namespace medusa {

/// Physical cores this process may keep busy: its affinity mask, one thread of each core, cut by
/// the quota of its control group. At least 1.
int available_processors();

}  // namespace medusa
