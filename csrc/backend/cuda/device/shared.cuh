#pragma once

#include <cstdint>

// Memory of a block. A kernel has at most one dynamic array; its size comes with the launch.

#define MEDUSA_SHARED(type, name, count) __shared__ __align__(16) type name[count]

#define MEDUSA_DYNAMIC_SHARED(type, name)                     \
  extern __shared__ __align__(16) unsigned char name##_raw[]; \
  type* const name = reinterpret_cast<type*>(name##_raw)

// The same, aligned as tiles that are swizzled must be (swizzle.cuh).
#define MEDUSA_SWIZZLED_SHARED(type, name)                      \
  extern __shared__ __align__(1024) unsigned char name##_raw[]; \
  type* const name = reinterpret_cast<type*>(name##_raw)
