#include "base/processors.h"

#include <sched.h>

#include <algorithm>
#include <fstream>
#include <set>
#include <string>
#include <thread>

namespace medusa {
namespace {

// Threads of one core name the same list, e.g. "0,64".
int cores_of_affinity_mask() {
  cpu_set_t mask;
  if (sched_getaffinity(0, sizeof(mask), &mask) != 0) {
    return static_cast<int>(std::thread::hardware_concurrency());
  }
  std::set<std::string> cores;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(cpu, &mask)) continue;
    const std::string name = std::to_string(cpu);
    std::ifstream file("/sys/devices/system/cpu/cpu" + name + "/topology/thread_siblings_list");
    std::string siblings;
    cores.insert(std::getline(file, siblings) ? siblings : name);
  }
  return static_cast<int>(cores.size());
}

// The path of this process in the unified hierarchy: the line "0::/path".
std::string control_group() {
  std::ifstream file("/proc/self/cgroup");
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("0::")) return line.substr(3);
  }
  return "";
}

// Processors granted by cpu.max ("quota period" or "max period"), or a large number.
double unified_quota() {
  double least = 1e9;
  for (std::string path = control_group();; path = path.substr(0, path.rfind('/'))) {
    std::ifstream file("/sys/fs/cgroup" + path + "/cpu.max");
    double quota = 0, period = 0;
    if (file >> quota >> period && period > 0) least = std::min(least, quota / period);
    if (path.find('/') == std::string::npos) return least;
  }
}

double legacy_quota() {
  std::ifstream quota_file("/sys/fs/cgroup/cpu/cpu.cfs_quota_us");
  std::ifstream period_file("/sys/fs/cgroup/cpu/cpu.cfs_period_us");
  double quota = -1, period = 0;
  const bool found = (quota_file >> quota) && (period_file >> period) && quota > 0 && period > 0;
  return found ? quota / period : 1e9;
}

}  // namespace

int available_processors() {
  const double quota = std::min(unified_quota(), legacy_quota());
  const double processors = std::min<double>(cores_of_affinity_mask(), quota);
  return std::max(1, static_cast<int>(processors));
}

}  // namespace medusa
