// NEON with dot products (Armv8.2): four registers for each vector.
#pragma once
#include <arm_neon.h>

namespace pellucid::PELLUCID_ISA {

struct f32x16 { float32x4_t v[4]; };
struct i32x16 { int32x4_t v[4]; };
struct u8x64 { uint8x16_t v[4]; };

inline constexpr int kTileRows = 2;
inline constexpr int kFloatTileRows = 2;
inline constexpr bool kWideIsSigned = true;

#define PELLUCID_PARTS(result, expression) \
  result r;                                \
  for (int i = 0; i < 4; ++i) r.v[i] = (expression); \
  return r

inline f32x16 set1(float x) { PELLUCID_PARTS(f32x16, vdupq_n_f32(x)); }
inline f32x16 zero_f() { return set1(0.0f); }
inline f32x16 load(const float* p) { PELLUCID_PARTS(f32x16, vld1q_f32(p + 4 * i)); }
inline void store(float* p, f32x16 a) {
  for (int i = 0; i < 4; ++i) vst1q_f32(p + 4 * i, a.v[i]);
}
inline f32x16 add(f32x16 a, f32x16 b) { PELLUCID_PARTS(f32x16, vaddq_f32(a.v[i], b.v[i])); }
inline f32x16 sub(f32x16 a, f32x16 b) { PELLUCID_PARTS(f32x16, vsubq_f32(a.v[i], b.v[i])); }
inline f32x16 mul(f32x16 a, f32x16 b) { PELLUCID_PARTS(f32x16, vmulq_f32(a.v[i], b.v[i])); }
inline f32x16 div(f32x16 a, f32x16 b) { PELLUCID_PARTS(f32x16, vdivq_f32(a.v[i], b.v[i])); }
inline f32x16 fma(f32x16 a, f32x16 b, f32x16 c) { PELLUCID_PARTS(f32x16, vfmaq_f32(c.v[i], a.v[i], b.v[i])); }
// as the x86 instructions: the second operand where either is not a number
inline f32x16 max(f32x16 a, f32x16 b) {
  PELLUCID_PARTS(f32x16, vbslq_f32(vcgtq_f32(a.v[i], b.v[i]), a.v[i], b.v[i]));
}
inline f32x16 min(f32x16 a, f32x16 b) {
  PELLUCID_PARTS(f32x16, vbslq_f32(vcltq_f32(a.v[i], b.v[i]), a.v[i], b.v[i]));
}
inline f32x16 abs(f32x16 a) { PELLUCID_PARTS(f32x16, vabsq_f32(a.v[i])); }
inline f32x16 round_even(f32x16 a) { PELLUCID_PARTS(f32x16, vrndnq_f32(a.v[i])); }
inline f32x16 select_less(f32x16 x, f32x16 limit, f32x16 a, f32x16 b) {
  PELLUCID_PARTS(f32x16, vbslq_f32(vcltq_f32(x.v[i], limit.v[i]), a.v[i], b.v[i]));
}
inline f32x16 blend(uint32_t keep, f32x16 a, f32x16 b) {
  const uint32_t bit_values[4] = {1, 2, 4, 8};
  const uint32x4_t bit = vld1q_u32(bit_values);
  PELLUCID_PARTS(f32x16, vbslq_f32(vtstq_u32(vdupq_n_u32(keep >> (4 * i)), bit), a.v[i], b.v[i]));
}
inline f32x16 load_f16(const uint16_t* p) {
  PELLUCID_PARTS(f32x16, vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p + 4 * i))));
}
inline void store_f16(uint16_t* p, f32x16 a) {
  for (int i = 0; i < 4; ++i) vst1_u16(p + 4 * i, vreinterpret_u16_f16(vcvt_f16_f32(a.v[i])));
}
inline f32x16 load_bf16(const uint16_t* p) {
  PELLUCID_PARTS(f32x16, vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p + 4 * i), 16)));
}
// lane i: number 2 i, or 2 i + 1, of 32 bf16
inline f32x16 load_bf16_even(const uint16_t* p) {
  PELLUCID_PARTS(f32x16, vreinterpretq_f32_u32(vshlq_n_u32(vreinterpretq_u32_u16(vld1q_u16(p + 8 * i)), 16)));
}
inline f32x16 load_bf16_odd(const uint16_t* p) {
  const uint32x4_t upper = vdupq_n_u32(0xffff0000u);
  PELLUCID_PARTS(f32x16, vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_u16(vld1q_u16(p + 8 * i)), upper)));
}

inline i32x16 set1(int32_t x) { PELLUCID_PARTS(i32x16, vdupq_n_s32(x)); }
inline i32x16 zero_i() { return set1(int32_t{0}); }
inline i32x16 add(i32x16 a, i32x16 b) { PELLUCID_PARTS(i32x16, vaddq_s32(a.v[i], b.v[i])); }
inline i32x16 mul(i32x16 a, i32x16 b) { PELLUCID_PARTS(i32x16, vmulq_s32(a.v[i], b.v[i])); }
template <int N> inline i32x16 shift_left(i32x16 a) { PELLUCID_PARTS(i32x16, vshlq_n_s32(a.v[i], N)); }
inline f32x16 to_float(i32x16 a) { PELLUCID_PARTS(f32x16, vcvtq_f32_s32(a.v[i])); }
inline i32x16 to_int(f32x16 a) { PELLUCID_PARTS(i32x16, vcvtq_s32_f32(a.v[i])); }
inline f32x16 as_float(i32x16 a) { PELLUCID_PARTS(f32x16, vreinterpretq_f32_s32(a.v[i])); }
inline i32x16 load_u8_to_i32(const uint8_t* p) {
  uint8x16_t x = vld1q_u8(p);
  uint16x8_t lo = vmovl_u8(vget_low_u8(x)), hi = vmovl_u8(vget_high_u8(x));
  return {{vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(lo))), vreinterpretq_s32_u32(vmovl_u16(vget_high_u16(lo))),
           vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(hi))), vreinterpretq_s32_u32(vmovl_u16(vget_high_u16(hi)))}};
}
inline i32x16 load_i8_to_i32(const int8_t* p) {
  int8x16_t x = vld1q_s8(p);
  int16x8_t lo = vmovl_s8(vget_low_s8(x)), hi = vmovl_s8(vget_high_s8(x));
  return {{vmovl_s16(vget_low_s16(lo)), vmovl_s16(vget_high_s16(lo)), vmovl_s16(vget_low_s16(hi)),
           vmovl_s16(vget_high_s16(hi))}};
}
inline void store_i8(int8_t* p, i32x16 a) {
  int16x8_t lo = vcombine_s16(vmovn_s32(a.v[0]), vmovn_s32(a.v[1]));
  int16x8_t hi = vcombine_s16(vmovn_s32(a.v[2]), vmovn_s32(a.v[3]));
  vst1q_s8(p, vcombine_s8(vmovn_s16(lo), vmovn_s16(hi)));
}

inline void store_i16(int16_t* p, i32x16 a) {
  for (int i = 0; i < 4; ++i) vst1_s16(p + 4 * i, vmovn_s32(a.v[i]));
}

inline u8x64 load64(const uint8_t* p) { PELLUCID_PARTS(u8x64, vld1q_u8(p + 16 * i)); }
// unsigned bytes that hold value + 128 as signed ones, or back
inline u8x64 flip_high_bits(u8x64 a) { PELLUCID_PARTS(u8x64, veorq_u8(a.v[i], vdupq_n_u8(0x80))); }
inline u8x64 low_nibbles(u8x64 a) { PELLUCID_PARTS(u8x64, vandq_u8(a.v[i], vdupq_n_u8(15))); }
inline u8x64 high_nibbles(u8x64 a) { PELLUCID_PARTS(u8x64, vshrq_n_u8(a.v[i], 4)); }
// Bytes whose upper half is a nibble of `upper` and whose lower half is the same nibble of `lower`: the low nibbles or the
// high ones.
inline u8x64 join_low_nibbles(u8x64 upper, u8x64 lower) {
  PELLUCID_PARTS(u8x64, vsliq_n_u8(lower.v[i], upper.v[i], 4));
}
inline u8x64 join_high_nibbles(u8x64 upper, u8x64 lower) {
  PELLUCID_PARTS(u8x64, vsriq_n_u8(upper.v[i], lower.v[i], 4));
}
// bits shifted left by N (right by -N) within each byte
template <int N> inline uint8x16_t shift_byte(uint8x16_t a) { return vshlq_u8(a, vdupq_n_s8(N)); }
template <int J> inline u8x64 or_two_bits_at_4(u8x64 low, u8x64 b) {
  PELLUCID_PARTS(u8x64, vorrq_u8(low.v[i], vandq_u8(shift_byte<4 - 2 * J>(b.v[i]), vdupq_n_u8(0x30))));
}
template <int J, int AT> inline u8x64 or_bit(u8x64 low, u8x64 b) {
  PELLUCID_PARTS(u8x64, vorrq_u8(low.v[i], vandq_u8(shift_byte<AT - J>(b.v[i]), vdupq_n_u8(1 << AT))));
}
template <int J> inline u8x64 two_bits(u8x64 a) {
  PELLUCID_PARTS(u8x64, vandq_u8(shift_byte<-2 * J>(a.v[i]), vdupq_n_u8(3)));
}

inline int8x16_t broadcast4(const int8_t* a) {
  int32_t x;
  std::memcpy(&x, a, 4);
  return vreinterpretq_s8_s32(vdupq_n_s32(x));
}
inline i32x16 dot4(i32x16 acc, u8x64 w, const int8_t* a) {
  int8x16_t x = broadcast4(a);
  PELLUCID_PARTS(i32x16, vdotq_s32(acc.v[i], vreinterpretq_s8_u8(w.v[i]), x));
}
inline i32x16 dot4_wide(i32x16 acc, u8x64 w, const int8_t* a) { return dot4(acc, w, a); }
// acc[lane] += sum of two products of int16: w[2 lane + i] * a[i]. Exact.
inline i32x16 dot2(i32x16 acc, u8x64 w, const int16_t* a) {
  int32_t two;
  std::memcpy(&two, a, 4);
  const int16x8_t x = vreinterpretq_s16_s32(vdupq_n_s32(two));
  for (int i = 0; i < 4; ++i) {
    const int16x8_t y = vreinterpretq_s16_u8(w.v[i]);
    acc.v[i] = vaddq_s32(acc.v[i], vpaddq_s32(vmull_s16(vget_low_s16(y), vget_low_s16(x)), vmull_high_s16(y, x)));
  }
  return acc;
}

inline float reduce_add(f32x16 a) {
  float32x4_t s0 = vaddq_f32(a.v[0], a.v[2]), s1 = vaddq_f32(a.v[1], a.v[3]);
  float32x4_t s = vaddq_f32(s0, s1);
  float32x2_t t = vadd_f32(vget_low_f32(s), vget_high_f32(s));
  return vget_lane_f32(t, 0) + vget_lane_f32(t, 1);
}
inline float reduce_max(f32x16 a) {
  return vmaxvq_f32(vmaxq_f32(vmaxq_f32(a.v[0], a.v[1]), vmaxq_f32(a.v[2], a.v[3])));
}
#undef PELLUCID_PARTS

}  // namespace pellucid::PELLUCID_ISA
