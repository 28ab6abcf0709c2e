// Elementary functions, lane by lane: the same bits on every instruction set (only +, *, fma, division).
#pragma once
#include "simd/simd.h"

namespace pellucid::PELLUCID_ISA {

// e^x, relative error below 2e-7. Below -87.3 the result is exactly 0; above 88.7 it is infinity.
// Cody-Waite reduction x = n ln 2 + r, |r| <= ln 2 / 2, and the Taylor polynomial of degree 7.
inline f32x16 exp(f32x16 x) {
  const f32x16 clamped = max(min(x, set1(88.8f)), set1(-87.4f));
  const f32x16 n = round_even(mul(clamped, set1(1.44269504088896341f)));
  f32x16 r = fma(n, set1(-0.693359375f), clamped);
  r = fma(n, set1(2.12194440e-4f), r);
  f32x16 p = set1(1.0f / 5040.0f);
  p = fma(p, r, set1(1.0f / 720.0f));
  p = fma(p, r, set1(1.0f / 120.0f));
  p = fma(p, r, set1(1.0f / 24.0f));
  p = fma(p, r, set1(1.0f / 6.0f));
  p = fma(p, r, set1(0.5f));
  p = fma(p, r, set1(1.0f));
  p = fma(p, r, set1(1.0f));
  // 2^n as 2^(n - 1) * 2, so that n = 128 does not leave the exponent's range
  const f32x16 power = as_float(shift_left<23>(add(to_int(n), set1(int32_t{126}))));
  p = mul(mul(p, power), set1(2.0f));
  p = select_less(x, set1(-87.3f), zero_f(), p);
  return select_less(set1(88.72f), x, set1(__builtin_inff()), p);
}

// 2^x for x <= 0, relative error below 1.5e-7; 2^0 is exactly 1, and what is below 2^-125 is 2^-125. NaN gives NaN.
// x = n + r, |r| <= 1/2; the polynomial is the interpolation of (2^r - 1) / r in Chebyshev's points.
inline f32x16 exp2_falling(f32x16 x) {
  const f32x16 clamped = max(set1(-125.0f), x);
  const f32x16 n = round_even(clamped), r = sub(clamped, n);
  f32x16 p = set1(0.00015461447f);
  p = fma(p, r, set1(0.0013390867f));
  p = fma(p, r, set1(0.009618057f));
  p = fma(p, r, set1(0.05550357f));
  p = fma(p, r, set1(0.24022651f));
  p = fma(p, r, set1(0.6931472f));
  p = fma(p, r, set1(1.0f));
  return mul(p, as_float(shift_left<23>(add(to_int(n), set1(int32_t{127})))));
}

inline f32x16 sigmoid(f32x16 x) { return div(set1(1.0f), add(set1(1.0f), exp(sub(zero_f(), x)))); }

// x * sigmoid(x)
inline f32x16 silu(f32x16 x) { return div(x, add(set1(1.0f), exp(sub(zero_f(), x)))); }

// 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) = x * sigmoid(2 sqrt(2/pi) (x + 0.044715 x^3))
inline f32x16 gelu_tanh(f32x16 x) {
  const f32x16 cubic = fma(mul(mul(x, x), x), set1(0.044715f), x);
  const f32x16 u = mul(cubic, set1(-1.5957691216057308f));
  return div(x, add(set1(1.0f), exp(u)));
}

}  // namespace pellucid::PELLUCID_ISA
