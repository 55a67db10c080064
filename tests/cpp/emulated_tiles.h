// No include guard: once in each ISA file, after vec.h. The software twin of backend/cpu/tiles.h:
// the same names, by the instructions' definitions (Intel SDM). Loads read all configured rows, so
// that a sanitizer sees what the hardware would touch.
namespace medusa::cpu::MEDUSA_ISA {
namespace {

struct Tile {
  uint8_t bytes[16][64];
};
thread_local Tile tiles[8];
thread_local int tile_depth = 0;  // bytes of a row of A; 0: not configured

template <int kDepth = 64>
void configure_tiles() {
  tile_depth = kDepth;
}
inline void release_tiles() { tile_depth = 0; }

// Without a configuration the instructions fault.
inline void need_configuration() {
  if (tile_depth == 0) __builtin_trap();
}
inline int tile_rows(int tile) { return tile < 6 ? 16 : tile_depth / 4; }
inline uint64_t tile_row_bytes(int tile) {
  return tile == 4 || tile == 5 ? static_cast<uint64_t>(tile_depth) : 64;
}

template <int T>
void zero_tile() {
  need_configuration();
  tiles[T] = Tile{};
}
template <int T>
void load_tile(const void* p, int64_t stride) {
  need_configuration();
  tiles[T] = Tile{};
  for (int r = 0; r < tile_rows(T); ++r) {
    const char* row = static_cast<const char*>(p) + r * stride;
    __builtin_memcpy(tiles[T].bytes[r], row, tile_row_bytes(T));
  }
}
template <int T>
void store_tile(void* p, int64_t stride) {
  need_configuration();
  for (int r = 0; r < 16; ++r) {
    __builtin_memcpy(static_cast<char*>(p) + r * stride, tiles[T].bytes[r], 64);
  }
}

inline float element(const Tile& tile, int row, int column) {
  uint16_t value;
  __builtin_memcpy(&value, tile.bytes[row] + column * 2, 2);
  return to_float(value);
}

// TDPBF16PS: even and odd products of a row are summed apart, then added to C.
template <int C, int A, int B>
void multiply_tiles() {
  need_configuration();
  for (int m = 0; m < 16; ++m) {
    for (int n = 0; n < 16; ++n) {
      float even = 0, odd = 0, sum;
      for (int k = 0; k < 16; ++k) {
        even += element(tiles[A], m, 2 * k) * element(tiles[B], k, 2 * n);
        odd += element(tiles[A], m, 2 * k + 1) * element(tiles[B], k, 2 * n + 1);
      }
      __builtin_memcpy(&sum, tiles[C].bytes[m] + n * 4, 4);
      sum += even + odd;
      __builtin_memcpy(tiles[C].bytes[m] + n * 4, &sum, 4);
    }
  }
}

// TDPBSUD: signed bytes of A, unsigned bytes of B.
template <int C, int A, int B>
void multiply_byte_tiles() {
  need_configuration();
  for (int m = 0; m < 16; ++m) {
    for (int n = 0; n < 16; ++n) {
      int32_t sum;
      __builtin_memcpy(&sum, tiles[C].bytes[m] + n * 4, 4);
      for (int k = 0; k < tile_depth; ++k) {
        sum += static_cast<int8_t>(tiles[A].bytes[m][k]) * tiles[B].bytes[k / 4][n * 4 + k % 4];
      }
      __builtin_memcpy(tiles[C].bytes[m] + n * 4, &sum, 4);
    }
  }
}

}  // namespace
}  // namespace medusa::cpu::MEDUSA_ISA
