// No include guard: once in each ISA file, after vec.h. The whole vocabulary of AMX that products
// speak: eight tiles of 16 rows of 64 bytes. tests/cpp/emulated_tiles.h is its software twin.
namespace medusa::cpu::MEDUSA_ISA {
namespace {

struct alignas(64) TileConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};

  // Sums in tiles 0 to 3; A, in 4 and 5, has rows of `depth` bytes, B, in 6 and 7, a row for four.
  explicit constexpr TileConfig(int depth) {
    for (int t = 4; t < 6; ++t) row_bytes[t] = static_cast<uint16_t>(depth);
    for (int t = 6; t < 8; ++t) rows[t] = static_cast<uint8_t>(depth / 4);
  }
};
static_assert(sizeof(TileConfig) == 64);

// The operand is the whole structure: GCC 12's _tile_loadconfig names 8 bytes of it only, and the
// stores of the others are dropped.
template <int kDepth = 64>
MEDUSA_INLINE void configure_tiles() {
  static constexpr TileConfig config(kDepth);
  asm volatile("ldtilecfg %0" : : "m"(config));
}
MEDUSA_INLINE void release_tiles() { asm volatile("tilerelease" : : : "memory"); }

template <int T>
MEDUSA_INLINE void zero_tile() {
  asm volatile("tilezero %%tmm%c0" : : "i"(T));
}
// Rows lie `stride` bytes apart.
template <int T>
MEDUSA_INLINE void load_tile(const void* p, int64_t stride) {
  asm volatile("tileloadd (%1,%2,1), %%tmm%c0" : : "i"(T), "r"(p), "r"(stride) : "memory");
}
template <int T>
MEDUSA_INLINE void store_tile(void* p, int64_t stride) {
  asm volatile("tilestored %%tmm%c0, (%1,%2,1)" : : "i"(T), "r"(p), "r"(stride) : "memory");
}
// C f32 (16, 16) += A bf16 (16, 32) · B bf16 pairs (16, 16, 2).
template <int C, int A, int B>
MEDUSA_INLINE void multiply_tiles() {
  asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(C), "i"(A), "i"(B));
}
// C i32 (16, 16) += A signed bytes (16, depth) · B unsigned bytes by fours (depth / 4, 16, 4).
template <int C, int A, int B>
MEDUSA_INLINE void multiply_byte_tiles() {
  asm volatile("tdpbsud %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(C), "i"(A), "i"(B));
}

}  // namespace
}  // namespace medusa::cpu::MEDUSA_ISA
