#pragma once

#include "backend/cuda/device/threads.cuh"
#include "shared_memory.h"

#define MEDUSA_SHARED(type, name, count)                                                     \
  static ::medusa::emulation::SharedStorage name##_storage(#name, sizeof(type) * (count),    \
                                                           std::source_location::current()); \
  const ::medusa::emulation::SharedArray<type> name(name##_storage, count)

#define MEDUSA_DYNAMIC_SHARED(type, name)                                   \
  ::medusa::emulation::SharedStorage& name##_storage =                      \
      ::medusa::emulation::dynamic_shared(std::source_location::current()); \
  const ::medusa::emulation::SharedArray<type> name(name##_storage,         \
                                                    name##_storage.bytes() / sizeof(type))

#define MEDUSA_SWIZZLED_SHARED(type, name)                                  \
  ::medusa::emulation::SharedStorage& name##_storage =                      \
      ::medusa::emulation::dynamic_shared(std::source_location::current()); \
  const ::medusa::emulation::SharedArray<type> name(name##_storage,         \
                                                    name##_storage.bytes() / sizeof(type), 1024)
