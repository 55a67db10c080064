// No include guard: once in each ISA file, after vec.h. The software twin of backend/cpu/tiles.h:
// the same names, by the instructions' definitions (Intel SDM). Loads read 16 full rows, so that a
// sanitizer sees what the hardware would touch.
namespace medusa::cpu::MEDUSA_ISA {
namespace {

struct Tile {
  uint8_t bytes[16][64];
};
thread_local Tile tiles[8];
thread_local bool tiles_configured = false;

inline void configure_tiles() { tiles_configured = true; }
inline void release_tiles() { tiles_configured = false; }

// Without a configuration the instructions fault.
inline void need_configuration() {
  if (!tiles_configured) __builtin_trap();
}

template <int T>
void zero_tile() {
  need_configuration();
  tiles[T] = Tile{};
}
template <int T>
void load_tile(const void* p, int64_t stride) {
  need_configuration();
  for (int r = 0; r < 16; ++r) {
    __builtin_memcpy(tiles[T].bytes[r], static_cast<const char*>(p) + r * stride, 64);
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

}  // namespace
}  // namespace medusa::cpu::MEDUSA_ISA
