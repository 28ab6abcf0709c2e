// AVX2 with FMA and F16C: two registers for each vector.
#pragma once
#include <immintrin.h>

namespace pellucid::PELLUCID_ISA {

struct f32x16 { __m256 a, b; };
struct i32x16 { __m256i a, b; };
struct u8x64 { __m256i a, b; };

inline constexpr int kTileRows = 4;
inline constexpr int kFloatTileRows = 2;
inline constexpr bool kWideIsSigned = true;  // 8-bit weights are stored as they are

inline f32x16 zero_f() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
inline f32x16 set1(float x) { __m256 v = _mm256_set1_ps(x); return {v, v}; }
inline f32x16 load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
inline void store(float* p, f32x16 x) { _mm256_storeu_ps(p, x.a); _mm256_storeu_ps(p + 8, x.b); }
inline f32x16 add(f32x16 x, f32x16 y) { return {_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)}; }
inline f32x16 sub(f32x16 x, f32x16 y) { return {_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b)}; }
inline f32x16 mul(f32x16 x, f32x16 y) { return {_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)}; }
inline f32x16 div(f32x16 x, f32x16 y) { return {_mm256_div_ps(x.a, y.a), _mm256_div_ps(x.b, y.b)}; }
inline f32x16 fma(f32x16 x, f32x16 y, f32x16 z) {
  return {_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)};
}
inline f32x16 max(f32x16 x, f32x16 y) { return {_mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b)}; }
inline f32x16 min(f32x16 x, f32x16 y) { return {_mm256_min_ps(x.a, y.a), _mm256_min_ps(x.b, y.b)}; }
inline f32x16 abs(f32x16 x) {
  __m256 m = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffffff));
  return {_mm256_and_ps(x.a, m), _mm256_and_ps(x.b, m)};
}
inline f32x16 round_even(f32x16 x) {
  constexpr int mode = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  return {_mm256_round_ps(x.a, mode), _mm256_round_ps(x.b, mode)};
}
inline f32x16 select_less(f32x16 x, f32x16 limit, f32x16 p, f32x16 q) {
  return {_mm256_blendv_ps(q.a, p.a, _mm256_cmp_ps(x.a, limit.a, _CMP_LT_OQ)),
          _mm256_blendv_ps(q.b, p.b, _mm256_cmp_ps(x.b, limit.b, _CMP_LT_OQ))};
}
inline __m256 lane_mask(uint32_t bits) {
  const __m256i bit = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
  __m256i x = _mm256_and_si256(_mm256_set1_epi32(static_cast<int>(bits)), bit);
  return _mm256_castsi256_ps(_mm256_cmpeq_epi32(x, bit));
}
inline f32x16 blend(uint32_t keep, f32x16 p, f32x16 q) {
  return {_mm256_blendv_ps(q.a, p.a, lane_mask(keep)), _mm256_blendv_ps(q.b, p.b, lane_mask(keep >> 8))};
}

inline f32x16 load_f16(const uint16_t* p) {
  return {_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))),
          _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p + 8)))};
}
inline void store_f16(uint16_t* p, f32x16 x) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(x.a, _MM_FROUND_TO_NEAREST_INT));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p + 8), _mm256_cvtps_ph(x.b, _MM_FROUND_TO_NEAREST_INT));
}
inline __m256 bf16_half(const uint16_t* p) {
  __m256i x = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  return _mm256_castsi256_ps(_mm256_slli_epi32(x, 16));
}
inline f32x16 load_bf16(const uint16_t* p) { return {bf16_half(p), bf16_half(p + 8)}; }
// lane i: number 2 i, or 2 i + 1, of 32 bf16
inline __m256 bf16_even_half(const uint16_t* p) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)), 16));
}
inline __m256 bf16_odd_half(const uint16_t* p) {
  __m256i x = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  return _mm256_castsi256_ps(_mm256_and_si256(x, _mm256_set1_epi32(-65536)));
}
inline f32x16 load_bf16_even(const uint16_t* p) { return {bf16_even_half(p), bf16_even_half(p + 16)}; }
inline f32x16 load_bf16_odd(const uint16_t* p) { return {bf16_odd_half(p), bf16_odd_half(p + 16)}; }

inline i32x16 zero_i() { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }
inline i32x16 set1(int32_t x) { __m256i v = _mm256_set1_epi32(x); return {v, v}; }
inline i32x16 add(i32x16 x, i32x16 y) { return {_mm256_add_epi32(x.a, y.a), _mm256_add_epi32(x.b, y.b)}; }
inline i32x16 mul(i32x16 x, i32x16 y) { return {_mm256_mullo_epi32(x.a, y.a), _mm256_mullo_epi32(x.b, y.b)}; }
template <int N> inline i32x16 shift_left(i32x16 x) {
  return {_mm256_slli_epi32(x.a, N), _mm256_slli_epi32(x.b, N)};
}
inline f32x16 to_float(i32x16 x) { return {_mm256_cvtepi32_ps(x.a), _mm256_cvtepi32_ps(x.b)}; }
inline i32x16 to_int(f32x16 x) { return {_mm256_cvtps_epi32(x.a), _mm256_cvtps_epi32(x.b)}; }
inline f32x16 as_float(i32x16 x) { return {_mm256_castsi256_ps(x.a), _mm256_castsi256_ps(x.b)}; }
inline i32x16 load_u8_to_i32(const uint8_t* p) {
  return {_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))),
          _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p + 8)))};
}
inline i32x16 load_i8_to_i32(const int8_t* p) {
  return {_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))),
          _mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p + 8)))};
}
inline void store_i8(int8_t* p, i32x16 x) {
  __m256i w = _mm256_permute4x64_epi64(_mm256_packs_epi32(x.a, x.b), 0xD8);
  __m128i b = _mm_packs_epi16(_mm256_castsi256_si128(w), _mm256_extracti128_si256(w, 1));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), b);
}

inline void store_i16(int16_t* p, i32x16 x) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm256_permute4x64_epi64(_mm256_packs_epi32(x.a, x.b), 0xD8));
}

inline u8x64 load64(const uint8_t* p) {
  return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)),
          _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + 32))};
}
inline u8x64 and_bytes(u8x64 x, int m) {
  __m256i v = _mm256_set1_epi8(static_cast<char>(m));
  return {_mm256_and_si256(x.a, v), _mm256_and_si256(x.b, v)};
}
inline u8x64 or_bytes(u8x64 x, u8x64 y) { return {_mm256_or_si256(x.a, y.a), _mm256_or_si256(x.b, y.b)}; }
// positive N: left, negative: right; bits that cross a byte are masked by the callers
template <int N> inline u8x64 shift_bits(u8x64 x) {
  if constexpr (N > 0) return {_mm256_slli_epi16(x.a, N), _mm256_slli_epi16(x.b, N)};
  else if constexpr (N < 0) return {_mm256_srli_epi16(x.a, -N), _mm256_srli_epi16(x.b, -N)};
  else return x;
}
// unsigned bytes that hold value + 128 as signed ones, or back
inline u8x64 flip_high_bits(u8x64 x) {
  const __m256i m = _mm256_set1_epi8(-128);
  return {_mm256_xor_si256(x.a, m), _mm256_xor_si256(x.b, m)};
}
inline u8x64 low_nibbles(u8x64 x) { return and_bytes(x, 15); }
inline u8x64 high_nibbles(u8x64 x) { return and_bytes(shift_bits<-4>(x), 15); }
// Bytes whose upper half is a nibble of `upper` and whose lower half is the same nibble of `lower`: the low nibbles or the
// high ones.
inline u8x64 join_low_nibbles(u8x64 upper, u8x64 lower) {
  return or_bytes(and_bytes(shift_bits<4>(upper), 0xf0), low_nibbles(lower));
}
inline u8x64 join_high_nibbles(u8x64 upper, u8x64 lower) { return or_bytes(and_bytes(upper, 0xf0), high_nibbles(lower)); }
template <int J> inline u8x64 or_two_bits_at_4(u8x64 low, u8x64 bits) {
  return or_bytes(low, and_bytes(shift_bits<4 - 2 * J>(bits), 0x30));
}
template <int J, int AT> inline u8x64 or_bit(u8x64 low, u8x64 bits) {
  return or_bytes(low, and_bytes(shift_bits<AT - J>(bits), 1 << AT));
}
template <int J> inline u8x64 two_bits(u8x64 x) { return and_bytes(shift_bits<-2 * J>(x), 3); }

inline __m256i broadcast4(const int8_t* a) {
  int32_t x;
  std::memcpy(&x, a, 4);
  return _mm256_set1_epi32(x);
}
// Weights below 128: a pair of products fits int16 while 2 * 127 * w < 32768, that is w <= 128.
inline i32x16 dot4(i32x16 acc, u8x64 w, const int8_t* a) {
  __m256i x = broadcast4(a), one = _mm256_set1_epi16(1);
  return {_mm256_add_epi32(acc.a, _mm256_madd_epi16(_mm256_maddubs_epi16(w.a, x), one)),
          _mm256_add_epi32(acc.b, _mm256_madd_epi16(_mm256_maddubs_epi16(w.b, x), one))};
}
// Signed weights: |w| <= 128 as unsigned, the sign moved to the activation. Exact.
inline i32x16 dot4_wide(i32x16 acc, u8x64 w, const int8_t* a) {
  __m256i x = broadcast4(a), one = _mm256_set1_epi16(1);
  __m256i pa = _mm256_maddubs_epi16(_mm256_abs_epi8(w.a), _mm256_sign_epi8(x, w.a));
  __m256i pb = _mm256_maddubs_epi16(_mm256_abs_epi8(w.b), _mm256_sign_epi8(x, w.b));
  return {_mm256_add_epi32(acc.a, _mm256_madd_epi16(pa, one)), _mm256_add_epi32(acc.b, _mm256_madd_epi16(pb, one))};
}
// acc[lane] += sum of two products of int16: w[2 lane + i] * a[i]. Exact.
inline i32x16 dot2(i32x16 acc, u8x64 w, const int16_t* a) {
  int32_t two;
  std::memcpy(&two, a, 4);
  const __m256i x = _mm256_set1_epi32(two);
  return {_mm256_add_epi32(acc.a, _mm256_madd_epi16(w.a, x)), _mm256_add_epi32(acc.b, _mm256_madd_epi16(w.b, x))};
}

inline float reduce_add(f32x16 x) {
  __m256 s = _mm256_add_ps(x.a, x.b);
  __m128 y = _mm_add_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1));
  y = _mm_add_ps(y, _mm_movehl_ps(y, y));
  return _mm_cvtss_f32(_mm_add_ss(y, _mm_movehdup_ps(y)));
}
inline float reduce_max(f32x16 x) {
  __m256 s = _mm256_max_ps(x.a, x.b);
  __m128 y = _mm_max_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1));
  y = _mm_max_ps(y, _mm_movehl_ps(y, y));
  return _mm_cvtss_f32(_mm_max_ss(y, _mm_movehdup_ps(y)));
}

}  // namespace pellucid::PELLUCID_ISA
