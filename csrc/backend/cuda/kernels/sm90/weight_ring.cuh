#pragma once

#include "backend/cuda/device/barrier.cuh"
#include "backend/cuda/device/threads.cuh"
#include "backend/cuda/kernels/linear_finish.cuh"
#include "backend/cuda/kernels/weight_formats.cuh"

// A warp's panel on its way through shared memory: bulk copies of 64 columns each, as they are
// packed, as many under way as the ring has stages. Nobody else reads them, so the warp itself asks
// for the next when it has read one.
namespace medusa::cuda {

template <class Weights>
struct WeightRing {
  static constexpr int kFactorBytes = Weights::kFactors * 2 * 64;
  static constexpr int kStageBytes = kSteps * Weights::kCodeBytes + kFactorBytes;
  static constexpr int kStages = (80 << 10) / kBlockPanels / kStageBytes;
  static constexpr int kBytes = kBlockPanels * kStages * kStageBytes;

  unsigned char* memory;  // of the warp: [stage][codes, scales, minimums]
  uint64_t* landed;       // [stage]
  PanelPieces panel;      // from the split's first column on
  int columns;            // of the split

  __device__ __forceinline__ int chunks() const { return (columns + kChunk - 1) / kChunk; }
  __device__ __forceinline__ int columns_of(int chunk) const {
    return min(kChunk, columns - chunk * kChunk);
  }

  // By one lane.
  __device__ __forceinline__ void init() const {
    for (int stage = 0; stage < kStages; ++stage) init_barrier(landed + stage, 1);
    show_barriers_to_copies();
  }
  // By one lane; nothing beyond the split's end.
  __device__ __forceinline__ void ask_for(int chunk) const {
    if (chunk >= chunks()) return;
    const int steps = columns_of(chunk) / 16;
    const uint32_t codes = steps * Weights::kCodeBytes, factors = steps / 2 * 64;
    unsigned char* to = memory + chunk % kStages * kStageBytes;
    uint64_t* barrier = landed + chunk % kStages;
    arrive_expecting(barrier, codes + Weights::kFactors * factors);
    copy_bulk_once(to, panel.codes + int64_t{chunk} * kSteps * Weights::kCodeBytes, codes, barrier);
    to += kSteps * Weights::kCodeBytes;
    if (Weights::kFactors > 0) {
      copy_bulk_once(to, panel.scales + chunk * 128, factors, barrier);
    }
    if (Weights::kFactors > 1) {
      copy_bulk_once(to + 128, panel.minimums + chunk * 128, factors, barrier);
    }
  }
  // Waits for it.
  __device__ __forceinline__ void read(typename Weights::Chunk& to, int chunk) const {
    wait_barrier(landed + chunk % kStages, chunk / kStages % 2);
    const auto* at = reinterpret_cast<const char*>(memory) + chunk % kStages * kStageBytes;
    const char* scales = at + kSteps * Weights::kCodeBytes;
    Weights::template load<FromShared>(to, {at, scales, scales + 128}, columns_of(chunk));
  }
};

}  // namespace medusa::cuda
