#pragma once

// GCC 12 declares 8 of the 64 bytes that ldtilecfg reads, so that at -O3 the stores of the rest of
// a local configuration are dropped, and llama.cpp's AMX code dies of it. Included before its
// sources.
#if defined(__AMX_TILE__) && defined(__GNUC__) && !defined(__clang__)
#include <immintrin.h>
#define _tile_loadconfig(config) \
  asm volatile("ldtilecfg %0" ::"m"(*reinterpret_cast<const char (*)[64]>(config)))
#endif
