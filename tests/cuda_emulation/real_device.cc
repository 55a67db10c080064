// The device under test is a GPU. compute-sanitizer says what was written outside of allocations.
#include <gtest/gtest.h>

#include <cstdio>

#include "backend/backend.h"
#include "device.h"
#include "medusa/device.h"

namespace medusa::device {

std::vector<std::string> schedules() { return {"device"}; }
void choose_schedule(int) {}
void check_memory() {}

}  // namespace medusa::device

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  if (GTEST_FLAG_GET(list_tests)) return RUN_ALL_TESTS();
  if (const std::string reason = medusa::why_no_cuda(); !reason.empty()) {
    std::fprintf(stderr, "gpu_test: nothing was tested: %s\n", reason.c_str());
    return 1;
  }
  std::printf("%s\n", medusa::make_cuda_backend({}, 0)->name().c_str());
  return RUN_ALL_TESTS();
}
