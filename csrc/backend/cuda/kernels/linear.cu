// Products with bf16 and f16 weights, and which kernel takes which weight.
#include "backend/cuda/kernels/linear_tiles.cuh"

namespace medusa::cuda {

void linear_blocks(const Stream& stream, Format format, const LinearArgs& args);
void linear_f32(const Stream& stream, const LinearArgs& args);
void linear_float8(const Stream& stream, const LinearArgs& args);
void linear_sm90(const Stream& stream, Format format, const LinearArgs& args);

namespace {

constexpr int kRowsF32 = 8;  // of a block of linear_f32

constexpr int64_t divide_up(int64_t n, int64_t by) { return (n + by - 1) / by; }
constexpr int64_t most_in_cluster(int64_t splits) {
  return splits < kClusterBlocks ? splits : kClusterBlocks;
}

}  // namespace

// Portable kernels hide waiting by several blocks on a multiprocessor, those for 9.0 by what one
// block has under way: there a block more than there are multiprocessors makes one of them slower.
int linear_splits(KernelSet kernels, int64_t k, int64_t n) {
  constexpr int64_t kBlocks = 132;    // one on each multiprocessor of an H100 or H200
  constexpr int64_t kLeast = 4 * 64;  // columns that make a block worthwhile
  const int64_t tiles = divide_up(n, 128);
  const int64_t wanted =
      kernels == KernelSet::sm90 ? most_in_cluster(kBlocks / tiles) : divide_up(kBlocks, tiles);
  const int64_t splits = wanted < k / kLeast ? wanted : k / kLeast;
  return static_cast<int>(splits < 1 ? 1 : splits);
}

// Within what a tile's splits leave of a cluster, and in whole clusters.
int linear_sharers(KernelSet kernels, int64_t k, int64_t n) {
  if (kernels == KernelSet::portable) return 1;
  const int64_t tiles = divide_up(n, 128), room = kClusterBlocks / linear_splits(kernels, k, n);
  for (const int sharers : {4, 2}) {
    if (sharers <= room && tiles % sharers == 0) return sharers;
  }
  return 1;
}

bool linear_joins_in_memory(KernelSet kernels, Format format, int splits) {
  return splits > 1 && (kernels == KernelSet::portable || format == Format::f32);
}

int64_t linear_tiles(Format format, int64_t rows, int64_t n) {
  return divide_up(n, 128) * divide_up(rows, format == Format::f32 ? kRowsF32 : 64);
}

// 128 rows of the weight times the rows of a tile, for every tile and split.
int64_t linear_partials(Format format, int64_t rows, int64_t n, int splits) {
  return linear_tiles(format, rows, n) * splits * 128 * (format == Format::f32 ? kRowsF32 : 64);
}

void linear(const Stream& stream, Format format, const LinearArgs& a) {
  if (format == Format::f32) return linear_f32(stream, a);
  if (format == Format::f8_e4m3) return linear_float8(stream, a);
  if (a.kernels == KernelSet::sm90) return linear_sm90(stream, format, a);
  if (format == Format::bf16) return launch_rows<PlainWeights<bf16>>(stream, a);
  if (format == Format::f16) return launch_rows<PlainWeights<f16>>(stream, a);
  linear_blocks(stream, format, a);
}

}  // namespace medusa::cuda
