#pragma once

#include <cstdint>

#include "backend/cuda/device/element.cuh"
#include "backend/cuda/device/swizzle.cuh"

// Compute capability 9.0a: tensor cores that four warps use together, and that work on their own
// until they are waited for (PTX ISA, "Asynchronous warpgroup level matrix instructions"). The left
// operand, (64, 16), lies in registers: warp w holds rows 16 w to 16 w + 15 as operand A of
// matrix.cuh. The right one, (16, 8 · kTiles), lies in shared memory, where a descriptor finds it.
// Sums are operand C of matrix.cuh, a tile of 8 columns after another.
namespace medusa::cuda {

// Before products: what the registers of their operands and sums hold is meant.
__device__ __forceinline__ void fence_products() {
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
// Closes a group of products.
__device__ __forceinline__ void commit_products() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
// Until no group is under way. The sums are named so that nobody reads them before.
template <int kTiles>
__device__ __forceinline__ void wait_for_products(float (&sums)[2][kTiles][4]) {
  asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
#pragma unroll
  for (int i = 0; i < 2 * kTiles * 4; ++i) {
    asm volatile("" : "+f"(sums[i / (4 * kTiles)][i / 4 % kTiles][i % 4])::"memory");
  }
}
// What copy_async_16 has brought, of this thread, may be read by products; then comes a barrier.
__device__ __forceinline__ void show_to_products() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

// sums += left · right, by all threads of the four warps.

#define WARPGROUP_SUMS(i) "+f"(c[i][0]), "+f"(c[i][1]), "+f"(c[i][2]), "+f"(c[i][3])
#define WARPGROUP_LEFT "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3])
// `sums` and `left`: numbers of the registers; `right`: of the descriptor.
#define WARPGROUP_PRODUCT(tiles, columns, type, name, sums, left, right, ...)                  \
  __device__ __forceinline__ void multiply_async(float (&c)[tiles][4], const uint32_t (&a)[4], \
                                                 uint64_t b, type) {                           \
    asm volatile(                                                                              \
        "{\n"                                                                                  \
        ".reg .pred add;\n"                                                                    \
        "setp.eq.u32 add, 1, 1;\n"                                                             \
        "wgmma.mma_async.sync.aligned.m64n" columns "k16.f32." name "." name " {" sums         \
        "}, "                                                                                  \
        "{" left "}, " right                                                                   \
        ", add, 1, 1, 0;\n"                                                                    \
        "}"                                                                                    \
        : __VA_ARGS__                                                                          \
        : WARPGROUP_LEFT, "l"(b));                                                             \
  }
#define WARPGROUP_PRODUCTS(type, name)                                                         \
  WARPGROUP_PRODUCT(1, "8", type, name, "%0, %1, %2, %3", "%4, %5, %6, %7", "%8",              \
                    WARPGROUP_SUMS(0))                                                         \
  WARPGROUP_PRODUCT(2, "16", type, name, "%0, %1, %2, %3, %4, %5, %6, %7", "%8, %9, %10, %11", \
                    "%12", WARPGROUP_SUMS(0), WARPGROUP_SUMS(1))                               \
  WARPGROUP_PRODUCT(4, "32", type, name,                                                       \
                    "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15",    \
                    "%16, %17, %18, %19", "%20", WARPGROUP_SUMS(0), WARPGROUP_SUMS(1),         \
                    WARPGROUP_SUMS(2), WARPGROUP_SUMS(3))                                      \
  WARPGROUP_PRODUCT(                                                                           \
      8, "64", type, name,                                                                     \
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "                 \
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31",        \
      "%32, %33, %34, %35", "%36", WARPGROUP_SUMS(0), WARPGROUP_SUMS(1), WARPGROUP_SUMS(2),    \
      WARPGROUP_SUMS(3), WARPGROUP_SUMS(4), WARPGROUP_SUMS(5), WARPGROUP_SUMS(6),              \
      WARPGROUP_SUMS(7))

WARPGROUP_PRODUCTS(bf16, "bf16")
WARPGROUP_PRODUCTS(f16, "f16")

#undef WARPGROUP_PRODUCTS
#undef WARPGROUP_PRODUCT
#undef WARPGROUP_LEFT
#undef WARPGROUP_SUMS

}  // namespace medusa::cuda
