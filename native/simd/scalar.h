// Plain C++: the twin that every other instruction set is held against.
#pragma once
#include <cmath>

#include "quant/half.h"

namespace pellucid::PELLUCID_ISA {

struct f32x16 { float v[16]; };
struct i32x16 { int32_t v[16]; };
struct u8x64 { uint8_t v[64]; };

inline constexpr int kTileRows = 2;
inline constexpr int kFloatTileRows = 2;
inline constexpr bool kWideIsSigned = true;

#define PELLUCID_LANES(result, expression) \
  result r;                                \
  for (int i = 0; i < 16; ++i) r.v[i] = (expression); \
  return r

inline f32x16 set1(float x) { PELLUCID_LANES(f32x16, x); }
inline f32x16 zero_f() { return set1(0.0f); }
inline f32x16 load(const float* p) { PELLUCID_LANES(f32x16, p[i]); }
inline void store(float* p, f32x16 a) { std::memcpy(p, a.v, sizeof a.v); }
inline f32x16 add(f32x16 a, f32x16 b) { PELLUCID_LANES(f32x16, a.v[i] + b.v[i]); }
inline f32x16 sub(f32x16 a, f32x16 b) { PELLUCID_LANES(f32x16, a.v[i] - b.v[i]); }
inline f32x16 mul(f32x16 a, f32x16 b) { PELLUCID_LANES(f32x16, a.v[i] * b.v[i]); }
inline f32x16 div(f32x16 a, f32x16 b) { PELLUCID_LANES(f32x16, a.v[i] / b.v[i]); }
inline f32x16 fma(f32x16 a, f32x16 b, f32x16 c) { PELLUCID_LANES(f32x16, std::fmaf(a.v[i], b.v[i], c.v[i])); }
// as the x86 instructions: the second operand where either is not a number
inline f32x16 max(f32x16 a, f32x16 b) { PELLUCID_LANES(f32x16, a.v[i] > b.v[i] ? a.v[i] : b.v[i]); }
inline f32x16 min(f32x16 a, f32x16 b) { PELLUCID_LANES(f32x16, a.v[i] < b.v[i] ? a.v[i] : b.v[i]); }
inline f32x16 abs(f32x16 a) { PELLUCID_LANES(f32x16, std::fabs(a.v[i])); }
inline f32x16 round_even(f32x16 a) { PELLUCID_LANES(f32x16, std::nearbyintf(a.v[i])); }
inline f32x16 select_less(f32x16 x, f32x16 limit, f32x16 a, f32x16 b) {
  PELLUCID_LANES(f32x16, x.v[i] < limit.v[i] ? a.v[i] : b.v[i]);
}
inline f32x16 blend(uint32_t keep, f32x16 a, f32x16 b) {
  PELLUCID_LANES(f32x16, (keep >> i) & 1 ? a.v[i] : b.v[i]);
}
inline f32x16 load_f16(const uint16_t* p) { PELLUCID_LANES(f32x16, quant::f16_to_f32(p[i])); }
inline f32x16 load_bf16(const uint16_t* p) { PELLUCID_LANES(f32x16, quant::bf16_to_f32(p[i])); }
// lane i: number 2 i, or 2 i + 1, of 32 bf16
inline f32x16 load_bf16_even(const uint16_t* p) { PELLUCID_LANES(f32x16, quant::bf16_to_f32(p[2 * i])); }
inline f32x16 load_bf16_odd(const uint16_t* p) { PELLUCID_LANES(f32x16, quant::bf16_to_f32(p[2 * i + 1])); }
// Round to nearest, ties to even.
inline uint16_t f32_to_f16(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  const uint32_t sign = (bits >> 16) & 0x8000u, magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return static_cast<uint16_t>(sign | 0x7e00u | ((magnitude >> 13) & 0x1ffu));
  if (magnitude >= 0x47800000u) return static_cast<uint16_t>(sign | 0x7c00u);  // 65536 and above: infinity
  if (magnitude < 0x38800000u) {  // subnormal: adding 0.5 rounds at 2^-24
    float y;
    std::memcpy(&y, &magnitude, 4);
    y += 0.5f;
    std::memcpy(&bits, &y, 4);
    return static_cast<uint16_t>(sign | (bits - 0x3f000000u));
  }
  const uint32_t rounded = magnitude + 0xfffu + ((magnitude >> 13) & 1u);
  return static_cast<uint16_t>(sign | ((rounded - 0x38000000u) >> 13));
}
inline void store_f16(uint16_t* p, f32x16 a) {
  for (int i = 0; i < 16; ++i) p[i] = f32_to_f16(a.v[i]);
}

inline i32x16 set1(int32_t x) { PELLUCID_LANES(i32x16, x); }
inline i32x16 zero_i() { return set1(int32_t{0}); }
inline i32x16 add(i32x16 a, i32x16 b) { PELLUCID_LANES(i32x16, a.v[i] + b.v[i]); }
inline i32x16 mul(i32x16 a, i32x16 b) { PELLUCID_LANES(i32x16, a.v[i] * b.v[i]); }
template <int N> inline i32x16 shift_left(i32x16 a) {
  PELLUCID_LANES(i32x16, static_cast<int32_t>(static_cast<uint32_t>(a.v[i]) << N));
}
inline f32x16 to_float(i32x16 a) { PELLUCID_LANES(f32x16, static_cast<float>(a.v[i])); }
// out of range gives the x86 answer, INT32_MIN
inline i32x16 to_int(f32x16 a) {
  PELLUCID_LANES(i32x16, (a.v[i] >= -2147483648.0f && a.v[i] < 2147483648.0f) ? static_cast<int32_t>(a.v[i])
                                                                             : INT32_MIN);
}
inline f32x16 as_float(i32x16 a) {
  f32x16 r;
  std::memcpy(r.v, a.v, sizeof r.v);
  return r;
}
inline i32x16 load_u8_to_i32(const uint8_t* p) { PELLUCID_LANES(i32x16, p[i]); }
inline i32x16 load_i8_to_i32(const int8_t* p) { PELLUCID_LANES(i32x16, p[i]); }
inline void store_i8(int8_t* p, i32x16 a) {
  for (int i = 0; i < 16; ++i) p[i] = static_cast<int8_t>(a.v[i]);
}
inline void store_i16(int16_t* p, i32x16 a) {
  for (int i = 0; i < 16; ++i) p[i] = static_cast<int16_t>(a.v[i]);
}

template <class F> inline u8x64 bytes(F f) {
  u8x64 r;
  for (int i = 0; i < 64; ++i) r.v[i] = static_cast<uint8_t>(f(i));
  return r;
}
inline u8x64 load64(const uint8_t* p) {
  u8x64 r;
  std::memcpy(r.v, p, 64);
  return r;
}
// unsigned bytes that hold value + 128 as signed ones, or back
inline u8x64 flip_high_bits(u8x64 a) {
  return bytes([&](int i) { return a.v[i] ^ 0x80; });
}
inline u8x64 low_nibbles(u8x64 a) { return bytes([&](int i) { return a.v[i] & 15; }); }
inline u8x64 high_nibbles(u8x64 a) { return bytes([&](int i) { return a.v[i] >> 4; }); }
// Bytes whose upper half is a nibble of `upper` and whose lower half is the same nibble of `lower`: the low nibbles or the
// high ones.
inline u8x64 join_low_nibbles(u8x64 upper, u8x64 lower) {
  return bytes([&](int i) { return (upper.v[i] & 15) << 4 | (lower.v[i] & 15); });
}
inline u8x64 join_high_nibbles(u8x64 upper, u8x64 lower) {
  return bytes([&](int i) { return (upper.v[i] & 0xf0) | lower.v[i] >> 4; });
}
template <int J> inline u8x64 or_two_bits_at_4(u8x64 low, u8x64 b) {
  return bytes([&](int i) { return low.v[i] | (((b.v[i] >> (2 * J)) & 3) << 4); });
}
template <int J, int AT> inline u8x64 or_bit(u8x64 low, u8x64 b) {
  return bytes([&](int i) { return low.v[i] | (((b.v[i] >> J) & 1) << AT); });
}
template <int J> inline u8x64 two_bits(u8x64 a) {
  return bytes([&](int i) { return (a.v[i] >> (2 * J)) & 3; });
}

inline i32x16 dot4(i32x16 acc, u8x64 w, const int8_t* a) {
  for (int i = 0; i < 16; ++i)
    for (int j = 0; j < 4; ++j) acc.v[i] += w.v[4 * i + j] * a[j];
  return acc;
}
inline i32x16 dot4_wide(i32x16 acc, u8x64 w, const int8_t* a) {
  for (int i = 0; i < 16; ++i)
    for (int j = 0; j < 4; ++j) acc.v[i] += static_cast<int8_t>(w.v[4 * i + j]) * a[j];
  return acc;
}
// acc[lane] += sum of two products of int16: w[2 lane + i] * a[i]. Exact.
inline i32x16 dot2(i32x16 acc, u8x64 w, const int16_t* a) {
  int16_t x[32];
  std::memcpy(x, w.v, 64);
  for (int i = 0; i < 16; ++i) acc.v[i] += x[2 * i] * a[0] + x[2 * i + 1] * a[1];
  return acc;
}

inline float reduce_add(f32x16 a) {
  for (int step = 8; step > 0; step /= 2)
    for (int i = 0; i < step; ++i) a.v[i] += a.v[i + step];
  return a.v[0];
}
inline float reduce_max(f32x16 a) {
  float m = a.v[0];
  for (int i = 1; i < 16; ++i) m = a.v[i] > m ? a.v[i] : m;
  return m;
}
#undef PELLUCID_LANES

}  // namespace pellucid::PELLUCID_ISA
