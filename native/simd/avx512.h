// AVX-512 with VNNI: one register for each vector.
#pragma once
#include <immintrin.h>

namespace pellucid::PELLUCID_ISA {

struct f32x16 { __m512 v; };
struct i32x16 { __m512i v; };
struct u8x64 { __m512i v; };

inline constexpr int kTileRows = 8;       // activation rows that share one unpacking of a weight block
inline constexpr int kFloatTileRows = 6;  // the same for float weights
inline constexpr bool kWideIsSigned = false;  // 8-bit weights are stored + 128, as vpdpbusd wants them

inline f32x16 zero_f() { return {_mm512_setzero_ps()}; }
inline f32x16 set1(float x) { return {_mm512_set1_ps(x)}; }
inline f32x16 load(const float* p) { return {_mm512_loadu_ps(p)}; }
inline void store(float* p, f32x16 a) { _mm512_storeu_ps(p, a.v); }
inline f32x16 add(f32x16 a, f32x16 b) { return {_mm512_add_ps(a.v, b.v)}; }
inline f32x16 sub(f32x16 a, f32x16 b) { return {_mm512_sub_ps(a.v, b.v)}; }
inline f32x16 mul(f32x16 a, f32x16 b) { return {_mm512_mul_ps(a.v, b.v)}; }
inline f32x16 div(f32x16 a, f32x16 b) { return {_mm512_div_ps(a.v, b.v)}; }
inline f32x16 fma(f32x16 a, f32x16 b, f32x16 c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
inline f32x16 max(f32x16 a, f32x16 b) { return {_mm512_max_ps(a.v, b.v)}; }
inline f32x16 min(f32x16 a, f32x16 b) { return {_mm512_min_ps(a.v, b.v)}; }
inline f32x16 abs(f32x16 a) { return {_mm512_abs_ps(a.v)}; }
inline f32x16 round_even(f32x16 a) {
  return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}
// lane i: a[i] where condition[i] < limit[i], else b[i]
inline f32x16 select_less(f32x16 x, f32x16 limit, f32x16 a, f32x16 b) {
  return {_mm512_mask_blend_ps(_mm512_cmp_ps_mask(x.v, limit.v, _CMP_LT_OQ), b.v, a.v)};
}
// lanes of `a` where the bit of `keep` is set, `b` elsewhere
inline f32x16 blend(uint32_t keep, f32x16 a, f32x16 b) {
  return {_mm512_mask_blend_ps(static_cast<__mmask16>(keep), b.v, a.v)};
}

inline f32x16 load_f16(const uint16_t* p) {
  return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
}
inline void store_f16(uint16_t* p, f32x16 a) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtps_ph(a.v, _MM_FROUND_TO_NEAREST_INT));
}
inline f32x16 load_bf16(const uint16_t* p) {
  __m512i x = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  return {_mm512_castsi512_ps(_mm512_slli_epi32(x, 16))};
}
// lane i: number 2 i, or 2 i + 1, of 32 bf16
inline f32x16 load_bf16_even(const uint16_t* p) { return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_loadu_si512(p), 16))}; }
inline f32x16 load_bf16_odd(const uint16_t* p) {
  return {_mm512_castsi512_ps(_mm512_and_si512(_mm512_loadu_si512(p), _mm512_set1_epi32(-65536)))};
}

inline i32x16 zero_i() { return {_mm512_setzero_si512()}; }
inline i32x16 set1(int32_t x) { return {_mm512_set1_epi32(x)}; }
inline i32x16 add(i32x16 a, i32x16 b) { return {_mm512_add_epi32(a.v, b.v)}; }
inline i32x16 mul(i32x16 a, i32x16 b) { return {_mm512_mullo_epi32(a.v, b.v)}; }
template <int N> inline i32x16 shift_left(i32x16 a) { return {_mm512_slli_epi32(a.v, N)}; }
inline f32x16 to_float(i32x16 a) { return {_mm512_cvtepi32_ps(a.v)}; }
inline i32x16 to_int(f32x16 a) { return {_mm512_cvtps_epi32(a.v)}; }  // of an integral value
inline f32x16 as_float(i32x16 a) { return {_mm512_castsi512_ps(a.v)}; }
inline i32x16 load_u8_to_i32(const uint8_t* p) {
  return {_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))};
}
inline i32x16 load_i8_to_i32(const int8_t* p) {
  return {_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))};
}
inline void store_i8(int8_t* p, i32x16 a) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(a.v));
}

inline void store_i16(int16_t* p, i32x16 a) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi32_epi16(a.v));
}

inline u8x64 load64(const uint8_t* p) { return {_mm512_loadu_si512(p)}; }
// unsigned bytes that hold value + 128 as signed ones, or back
inline u8x64 flip_high_bits(u8x64 a) { return {_mm512_xor_si512(a.v, _mm512_set1_epi8(-128))}; }
inline u8x64 low_nibbles(u8x64 a) { return {_mm512_and_si512(a.v, _mm512_set1_epi8(15))}; }
inline u8x64 high_nibbles(u8x64 a) {
  return {_mm512_and_si512(_mm512_srli_epi16(a.v, 4), _mm512_set1_epi8(15))};
}
// Bytes whose upper half is a nibble of `upper` and whose lower half is the same nibble of `lower`: the low nibbles or the
// high ones.
inline u8x64 join_low_nibbles(u8x64 upper, u8x64 lower) {  // 0xCA: mask ? second : third, bit by bit
  return {_mm512_ternarylogic_epi32(_mm512_set1_epi8(-16), _mm512_slli_epi16(upper.v, 4), lower.v, 0xCA)};
}
inline u8x64 join_high_nibbles(u8x64 upper, u8x64 lower) {
  return {_mm512_ternarylogic_epi32(_mm512_set1_epi8(-16), upper.v, _mm512_srli_epi16(lower.v, 4), 0xCA)};
}
// low | (two bits of `bits` starting at bit 2 * J, moved to bits 4..5)
template <int J> inline u8x64 or_two_bits_at_4(u8x64 low, u8x64 bits) {
  __m512i s = J == 2 ? bits.v : J < 2 ? _mm512_slli_epi16(bits.v, 4 - 2 * J) : _mm512_srli_epi16(bits.v, 2);
  return {_mm512_ternarylogic_epi32(low.v, s, _mm512_set1_epi8(0x30), 0xF8)};
}
// low | (bit J of `bits`, moved to bit AT)
template <int J, int AT> inline u8x64 or_bit(u8x64 low, u8x64 bits) {
  constexpr int up = AT > J ? AT - J : 0, down = J > AT ? J - AT : 0;
  __m512i s = up ? _mm512_slli_epi16(bits.v, up) : down ? _mm512_srli_epi16(bits.v, down) : bits.v;
  return {_mm512_ternarylogic_epi32(low.v, s, _mm512_set1_epi8(1 << AT), 0xF8)};
}
// two bits of each byte, starting at bit 2 * J
template <int J> inline u8x64 two_bits(u8x64 a) {
  return {_mm512_and_si512(J ? _mm512_srli_epi16(a.v, 2 * J) : a.v, _mm512_set1_epi8(3))};
}

// acc[lane] += sum of four products w[4 lane + i] * a[i]; w unsigned. Exact.
inline i32x16 dot4(i32x16 acc, u8x64 w, const int8_t* a) {
  int32_t x;
  std::memcpy(&x, a, 4);
  return {_mm512_dpbusd_epi32(acc.v, w.v, _mm512_set1_epi32(x))};
}
inline i32x16 dot4_wide(i32x16 acc, u8x64 w, const int8_t* a) { return dot4(acc, w, a); }
// acc[lane] += sum of two products of int16: w[2 lane + i] * a[i]. Exact.
// Around the intrinsic GCC 12 copies each of many sums, and keeps the copies in memory: twice as slow.
inline i32x16 dot2(i32x16 acc, u8x64 w, const int16_t* a) {
  int32_t x;
  std::memcpy(&x, a, 4);
  asm("vpdpwssd %2, %1, %0" : "+v"(acc.v) : "v"(w.v), "v"(_mm512_set1_epi32(x)));
  return acc;
}

// Fixed tree: lanes i and i + 8, then i and i + 4, i + 2, i + 1.
inline float reduce_add(f32x16 a) {
  __m256 x = _mm256_add_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
  __m128 y = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  y = _mm_add_ps(y, _mm_movehl_ps(y, y));
  return _mm_cvtss_f32(_mm_add_ss(y, _mm_movehdup_ps(y)));
}
inline float reduce_max(f32x16 a) { return _mm512_reduce_max_ps(a.v); }

}  // namespace pellucid::PELLUCID_ISA
