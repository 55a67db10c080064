#include "peak.h"

#include <cstdint>

#include "measure.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace medusa::benchmark {
namespace {

constexpr int64_t kRounds = 2'000'000;

#if defined(__x86_64__)

constexpr int kSums = 16;

// Returns the multiply-adds done.
__attribute__((target("avx512f,avx512bf16"))) double multiply_vectors() {
  __m512 sums[kSums];
  for (__m512& sum : sums) {
    sum = _mm512_setzero_ps();
    asm volatile("" : "+v"(sum));  // no two are known to be equal
  }
  __m512i x = _mm512_set1_epi32(0x3c003c00);
  for (int64_t i = 0; i < kRounds; ++i) {
    asm volatile("" : "+v"(x));  // not known to be the same each round
#pragma GCC unroll 16
    for (__m512& sum : sums) sum = _mm512_dpbf16_ps(sum, (__m512bh)x, (__m512bh)x);
  }
  for (__m512& sum : sums) asm volatile("" : : "v"(sum));
  return 32.0 * kSums * kRounds;
}

struct alignas(64) TileConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

double multiply_tiles() {
  static constexpr TileConfig config;
  constexpr int64_t kTileRounds = kRounds / 16;
  asm volatile("ldtilecfg %0" : : "m"(config));
  for (int64_t i = 0; i < kTileRounds; ++i) {
    asm volatile(
        "tdpbf16ps %tmm6, %tmm4, %tmm0\n\ttdpbf16ps %tmm7, %tmm4, %tmm1\n\t"
        "tdpbf16ps %tmm6, %tmm5, %tmm2\n\ttdpbf16ps %tmm7, %tmm5, %tmm3");
  }
  asm volatile("tilerelease");
  return 4.0 * 16 * 16 * 32 * kTileRounds;
}

#endif

double (*multiply_with(std::string_view isa))() {
#if defined(__x86_64__)
  if (isa == "amx") return multiply_tiles;
  if (isa == "avx512_bf16") return multiply_vectors;
#endif
  return nullptr;
}

}  // namespace

double bf16_peak(ThreadPool& pool, std::string_view isa) {
  double (*const multiply)() = multiply_with(isa);
  if (multiply == nullptr) return 0;
  double one = 0;
  const double seconds = seconds_of([&] {
    pool.run([&](int thread) {
      const double done = multiply();
      if (thread == 0) one = done;
    });
  });
  return one * pool.num_threads() / seconds;
}

}  // namespace medusa::benchmark
