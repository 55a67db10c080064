#pragma once

// Kernels that start before the one ahead of them has ended (launch_early): compute capability 9.0
// on; before that neither verb does anything, and nothing starts early. Here alone device code asks
// what it is compiled for.
namespace medusa::cuda {

// Once all blocks have said so, or returned, the next kernel may start.
__device__ __forceinline__ void let_next_kernel_start() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}
// Until all earlier kernels have ended and what they wrote can be read. By every thread of a kernel
// that starts early, before anything but weights is read and before anything is written.
__device__ __forceinline__ void wait_for_earlier_kernels() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
// Both at a kernel's start, which hides what it takes to launch it.
__device__ __forceinline__ void follow_earlier_kernels() {
  let_next_kernel_start();
  wait_for_earlier_kernels();
}

}  // namespace medusa::cuda
