// exp and log in float64 from +, -, *, / alone, so that every compiler, machine and the NumPy twin give the same bits.
#pragma once
#include <bit>
#include <cstdint>

#include "wide.h"

namespace pellucid::sampling {

inline constexpr double kLog2High = 0x1.62e42feep-1;  // log(2), 33 bits: times a small integer it is exact
inline constexpr double kLog2Low = 0x1.a39ef35793c76p-33;

// exp(x) for -700 <= x <= 0, within 2 ulp: x = k log(2) + r, |r| <= log(2) / 2, Taylor series of r to r^13.
inline double exp_negative(double x) {
  constexpr double magic = 0x1.8p52;  // adding it rounds to an integer, which stands in the low bits
  const double shifted = x * 0x1.71547652b82fep+0 + magic;
  const double k = shifted - magic;
  const double r = (x - k * kLog2High) - k * kLog2Low;
  double s = 1.0 / 6227020800.0;
  s = s * r + 1.0 / 479001600.0;
  s = s * r + 1.0 / 39916800.0;
  s = s * r + 1.0 / 3628800.0;
  s = s * r + 1.0 / 362880.0;
  s = s * r + 1.0 / 40320.0;
  s = s * r + 1.0 / 5040.0;
  s = s * r + 1.0 / 720.0;
  s = s * r + 1.0 / 120.0;
  s = s * r + 1.0 / 24.0;
  s = s * r + 1.0 / 6.0;
  s = s * r + 0.5;
  s = s * r + 1.0;
  s = s * r + 1.0;
  const uint64_t power = (std::bit_cast<uint64_t>(shifted) + 1023) << 52;  // 2^k; the magic's own bits shift out
  return s * std::bit_cast<double>(power);
}

// log(x) for normal positive x: x = m 2^e with m in [sqrt(1/2), sqrt(2)), log(m) = 2 atanh(t), t = (m - 1) / (m + 1).
inline double log_positive(double x) {
  const uint64_t bits = std::bit_cast<uint64_t>(x);
  int64_t e = static_cast<int64_t>(bits >> 52) - 1023;
  double m = std::bit_cast<double>((bits & 0xfffffffffffffull) | 0x3ff0000000000000ull);  // [1, 2)
  if (m >= 0x1.6a09e667f3bcdp+0) {
    m *= 0.5;
    e += 1;
  }
  const double t = (m - 1.0) / (m + 1.0);
  const double t2 = t * t;  // <= 0.0295: the series to t^21 leaves 2^-61 of its first term
  double s = 1.0 / 21.0;
  s = s * t2 + 1.0 / 19.0;
  s = s * t2 + 1.0 / 17.0;
  s = s * t2 + 1.0 / 15.0;
  s = s * t2 + 1.0 / 13.0;
  s = s * t2 + 1.0 / 11.0;
  s = s * t2 + 1.0 / 9.0;
  s = s * t2 + 1.0 / 7.0;
  s = s * t2 + 1.0 / 5.0;
  s = s * t2 + 1.0 / 3.0;
  const double k = static_cast<double>(e);
  const double log_m = 2.0 * t + (2.0 * t) * (t2 * s);
  return k * kLog2High + (log_m + k * kLog2Low);
}

}  // namespace pellucid::sampling
