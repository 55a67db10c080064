// No include guard: each ISA file includes this once, after defining MEDUSA_ISA (its namespace) and
// MEDUSA_WIDTH (floats in a vector). Vectors are the compiler's own, so that + - * / < ?: need no
// wrappers; what has no operator is below. Everything is local to the ISA file.
#include <stdint.h>

#define MEDUSA_STRING_OF(x) #x
#define MEDUSA_STRING(x) MEDUSA_STRING_OF(x)
#define MEDUSA_INLINE inline __attribute__((always_inline))

namespace medusa::cpu::MEDUSA_ISA {
namespace {

constexpr int kWidth = MEDUSA_WIDTH;

typedef float Vec __attribute__((vector_size(kWidth * 4)));
typedef int32_t IVec __attribute__((vector_size(kWidth * 4)));
typedef uint32_t UVec __attribute__((vector_size(kWidth * 4)));
typedef uint16_t HVec __attribute__((vector_size(kWidth * 2)));
typedef int8_t BVec __attribute__((vector_size(kWidth)));
typedef int16_t SVec __attribute__((vector_size(kWidth * 4)));  // two to a lane

// a - 0 is a, zeros of either sign included, and costs nothing; 0 + a would be an addition.
MEDUSA_INLINE Vec set1(float a) { return a - Vec{}; }
MEDUSA_INLINE UVec set1_u(uint32_t a) { return a - UVec{}; }
MEDUSA_INLINE IVec set1_i(int32_t a) { return a - IVec{}; }

template <class V, class T>
MEDUSA_INLINE V load_as(const T* p) {
  V v;
  __builtin_memcpy(&v, p, sizeof(v));
  return v;
}
MEDUSA_INLINE Vec load(const float* p) { return load_as<Vec>(p); }
MEDUSA_INLINE void store(float* p, Vec a) { __builtin_memcpy(p, &a, sizeof(a)); }

// Words with zeros above them; GCC 12 would take 16 of them apart and put them together again.
MEDUSA_INLINE UVec widened_words(const uint16_t* p) {
#if defined(__AVX512F__)
  return (UVec)_mm512_cvtepu16_epi32(load_as<__m256i>(p));
#else
  return __builtin_convertvector(load_as<HVec>(p), UVec);
#endif
}

// bf16 is the upper half of a float; rounded to nearest, ties to even, NaN stays NaN.
MEDUSA_INLINE Vec load(const uint16_t* p) { return (Vec)(widened_words(p) << 16); }
MEDUSA_INLINE void store(uint16_t* p, Vec a) {
  const UVec bits = (UVec)a;
  const UVec rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  const HVec half = __builtin_convertvector(a == a ? rounded : set1_u(0x7fc0), HVec);
  __builtin_memcpy(p, &half, sizeof(half));
}
MEDUSA_INLINE float to_float(float a) { return a; }
MEDUSA_INLINE float to_float(uint16_t a) {
  const uint32_t bits = uint32_t{a} << 16;
  float out;
  __builtin_memcpy(&out, &bits, sizeof(out));
  return out;
}

// 0, 1, 2, ...
MEDUSA_INLINE IVec lanes() {
  IVec v;
  for (int i = 0; i < kWidth; ++i) v[i] = i;
  return v;
}

// load: bytes, signed or not, as floats (GCC 12 would convert them one by one); store: the low
// bytes of integers. load_half: finite f16 numbers, widened. multiply_pairs: two products a lane,
// added.
#if defined(__AVX512F__)
MEDUSA_INLINE Vec load(const int8_t* p) {
  return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(load_as<__m128i>(p)));
}
MEDUSA_INLINE Vec load(const uint8_t* p) {
  return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(load_as<__m128i>(p)));
}
MEDUSA_INLINE void store(int8_t* p, IVec a) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8((__m512i)a));
}
MEDUSA_INLINE void store(int16_t* p, IVec a) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi32_epi16((__m512i)a));
}
MEDUSA_INLINE Vec load_half(const void* p) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(static_cast<const __m256i*>(p)));
}
MEDUSA_INLINE IVec multiply_pairs(SVec a, SVec b) {
  return (IVec)_mm512_madd_epi16((__m512i)a, (__m512i)b);
}
MEDUSA_INLINE Vec fma(Vec a, Vec b, Vec c) { return _mm512_fmadd_ps(a, b, c); }
MEDUSA_INLINE Vec max(Vec a, Vec b) { return _mm512_max_ps(a, b); }
MEDUSA_INLINE bool any_greater(Vec a, Vec b) { return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ) != 0; }
// Both halves of the products of 32-bit numbers.
MEDUSA_INLINE void multiply(UVec a, uint32_t b, UVec& high, UVec& low) {
  const __m512i m = _mm512_set1_epi64(b), v = (__m512i)a;
  const __m512i even = _mm512_mul_epu32(v, m), odd = _mm512_mul_epu32(_mm512_srli_epi64(v, 32), m);
  high = (UVec)_mm512_mask_blend_epi32(0xaaaa, _mm512_srli_epi64(even, 32), odd);
  low = (UVec)_mm512_mask_blend_epi32(0xaaaa, even, _mm512_slli_epi64(odd, 32));
}
#elif defined(__AVX2__) && defined(__FMA__)
MEDUSA_INLINE Vec load(const int8_t* p) {
  return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_cvtsi64_si128(load_as<int64_t>(p))));
}
MEDUSA_INLINE Vec load(const uint8_t* p) {
  return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_cvtsi64_si128(load_as<int64_t>(p))));
}
MEDUSA_INLINE void store(int8_t* p, IVec a) {
  const BVec bytes = __builtin_convertvector(__builtin_convertvector((UVec)a & 0xffff, HVec), BVec);
  __builtin_memcpy(p, &bytes, sizeof(bytes));
}
MEDUSA_INLINE Vec load_half(const void* p) {
  return _mm256_cvtph_ps(_mm_loadu_si128(static_cast<const __m128i*>(p)));
}
MEDUSA_INLINE IVec multiply_pairs(SVec a, SVec b) {
  return (IVec)_mm256_madd_epi16((__m256i)a, (__m256i)b);
}
MEDUSA_INLINE Vec fma(Vec a, Vec b, Vec c) { return _mm256_fmadd_ps(a, b, c); }
MEDUSA_INLINE Vec max(Vec a, Vec b) { return _mm256_max_ps(a, b); }
MEDUSA_INLINE bool any_greater(Vec a, Vec b) {
  return _mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_GT_OQ)) != 0;
}
MEDUSA_INLINE void multiply(UVec a, uint32_t b, UVec& high, UVec& low) {
  const __m256i m = _mm256_set1_epi64x(b), v = (__m256i)a;
  const __m256i even = _mm256_mul_epu32(v, m), odd = _mm256_mul_epu32(_mm256_srli_epi64(v, 32), m);
  high = (UVec)_mm256_blend_epi32(_mm256_srli_epi64(even, 32), odd, 0xaa);
  low = (UVec)_mm256_blend_epi32(even, _mm256_slli_epi64(odd, 32), 0xaa);
}
#else
MEDUSA_INLINE Vec load(const int8_t* p) {
  Vec v;
  for (int i = 0; i < kWidth; ++i) v[i] = p[i];
  return v;
}
MEDUSA_INLINE Vec load(const uint8_t* p) {
  Vec v;
  for (int i = 0; i < kWidth; ++i) v[i] = p[i];
  return v;
}
MEDUSA_INLINE void store(int8_t* p, IVec a) {
  const BVec bytes = __builtin_convertvector(a, BVec);
  __builtin_memcpy(p, &bytes, sizeof(bytes));
}
MEDUSA_INLINE Vec load_half(const void* p) {
  const UVec half = __builtin_convertvector(load_as<HVec>(static_cast<const uint16_t*>(p)), UVec);
  const UVec bits = (half & 0x7fffu) << 13;
  return (Vec)((UVec)((Vec)bits * 0x1p112f) | (half & 0x8000u) << 16);
}
#if defined(__SSE2__)
MEDUSA_INLINE IVec multiply_pairs(SVec a, SVec b) { return (IVec)__builtin_ia32_pmaddwd128(a, b); }
#else
MEDUSA_INLINE IVec multiply_pairs(SVec a, SVec b) {
  const IVec low_a = (IVec)a << 16 >> 16, low_b = (IVec)b << 16 >> 16;
  return low_a * low_b + ((IVec)a >> 16) * ((IVec)b >> 16);
}
#endif
MEDUSA_INLINE Vec fma(Vec a, Vec b, Vec c) { return a * b + c; }
MEDUSA_INLINE Vec max(Vec a, Vec b) { return a > b ? a : b; }
MEDUSA_INLINE bool any_greater(Vec a, Vec b) {
  const IVec greater = a > b;
  int32_t any = 0;
  for (int i = 0; i < kWidth; ++i) any |= greater[i];
  return any != 0;
}
MEDUSA_INLINE void multiply(UVec a, uint32_t b, UVec& high, UVec& low) {
  for (int i = 0; i < kWidth; ++i) {
    const uint64_t product = uint64_t{a[i]} * b;
    high[i] = static_cast<uint32_t>(product >> 32);
    low[i] = static_cast<uint32_t>(product);
  }
}
#endif

// Lane i is lane index[i] of a, or of a and b side by side. GCC's built-in does not exist in Clang.
#ifdef __clang__
MEDUSA_INLINE Vec shuffle(Vec a, Vec b, IVec index) {
  Vec out;
  for (int i = 0; i < kWidth; ++i) out[i] = index[i] < kWidth ? a[index[i]] : b[index[i] - kWidth];
  return out;
}
MEDUSA_INLINE Vec shuffle(Vec a, IVec index) { return shuffle(a, a, index); }
#else
MEDUSA_INLINE Vec shuffle(Vec a, Vec b, IVec index) { return __builtin_shuffle(a, b, index); }
MEDUSA_INLINE Vec shuffle(Vec a, IVec index) { return __builtin_shuffle(a, index); }
#endif

// The upper half folded onto the lower, `half` lanes apart; lanes beyond hold what is of no use.
MEDUSA_INLINE Vec shifted_down(Vec a, int half) {
  return shuffle(a, (lanes() + half) & (kWidth - 1));
}
// Halves are folded together, in this order on every ISA of one width.
MEDUSA_INLINE float reduce_add(Vec a) {
#pragma GCC unroll 4
  for (int half = kWidth / 2; half > 0; half /= 2) a += shifted_down(a, half);
  return a[0];
}
MEDUSA_INLINE float reduce_max(Vec a) {
#pragma GCC unroll 4
  for (int half = kWidth / 2; half > 0; half /= 2) a = max(a, shifted_down(a, half));
  return a[0];
}

// e^x within 2 ulp (Cephes expf) up to 88.37; 0 below -87.
MEDUSA_INLINE Vec exp_below_overflow(Vec x) {
  // The sum's low mantissa bits are the nearest integer to y · log2(e).
  const Vec shifted = fma(x, set1(1.44269504f), set1(12582912.0f));
  const Vec n = shifted - 12582912.0f;
  const Vec r = fma(n, set1(2.12194440e-4f), fma(n, set1(-0.693359375f), x));
  Vec p = set1(1.9875691500e-4f);
  p = fma(p, r, set1(1.3981999507e-3f));
  p = fma(p, r, set1(8.3334519073e-3f));
  p = fma(p, r, set1(4.1665795894e-2f));
  p = fma(p, r, set1(1.6666665459e-1f));
  p = fma(p, r, set1(5.0000001201e-1f));
  p = fma(p, r * r, r) + 1.0f;
  const Vec scaled = (Vec)((UVec)p + ((UVec)shifted << 23));  // below -87: no number at all
  return x < -87.0f ? Vec{} : scaled;
}
// The same for any x; e^88.37 above 88.37.
MEDUSA_INLINE Vec exp(Vec x) { return exp_below_overflow(x > 88.37f ? set1(88.37f) : x); }

// Natural logarithm of positive normal numbers within 2 ulp (Cephes logf).
MEDUSA_INLINE Vec log(Vec x) {
  const IVec offset =
      (IVec)((UVec)x - 0x3f3504f3u);  // of sqrt(1/2): the mantissa falls in [0.7, 1.41)
  const Vec e = __builtin_convertvector(offset >> 23, Vec);
  const Vec m = (Vec)((offset & 0x7fffff) + 0x3f3504f3) - 1.0f;
  const Vec z = m * m;
  Vec p = set1(7.0376836292e-2f);
  p = fma(p, m, set1(-1.1514610310e-1f));
  p = fma(p, m, set1(1.1676998740e-1f));
  p = fma(p, m, set1(-1.2420140846e-1f));
  p = fma(p, m, set1(1.4249322787e-1f));
  p = fma(p, m, set1(-1.6668057665e-1f));
  p = fma(p, m, set1(2.0000714765e-1f));
  p = fma(p, m, set1(-2.4999993993e-1f));
  p = fma(p, m, set1(3.3333331174e-1f));
  Vec y = m * z * p;
  y = fma(e, set1(-2.12194440e-4f), y);
  y = fma(z, set1(-0.5f), y);
  return fma(e, set1(0.693359375f), m + y);
}

MEDUSA_INLINE Vec silu(Vec x) { return x / (exp(Vec{} - x) + 1.0f); }

}  // namespace
}  // namespace medusa::cpu::MEDUSA_ISA
