// The packed formats as the matmul kernel sees them: how a block of 32 inputs becomes eight vectors of bytes, and
// where its scales are.
#pragma once
#include <type_traits>

#include "quant/packed.h"
#include "simd/simd.h"

namespace pellucid::PELLUCID_ISA {

using quant::Scheme;

// Kernels are one loop each: what stays a call loses its registers.
#define PELLUCID_INLINE inline __attribute__((always_inline))
#define PELLUCID_INLINE_LAMBDA __attribute__((always_inline))

template <int kNumber> using Number = std::integral_constant<int, kNumber>;

// f(Number<n>{}) for an n from 1 to kMost that is known only now.
template <int kMost, class Function> PELLUCID_INLINE void with_number(int64_t n, Function f) {
  if constexpr (kMost > 1) {
    if (n < kMost) return with_number<kMost - 1>(n, f);
  }
  f(Number<kMost>{});
}

// Calls f(number, bytes) for the eight groups (4 inputs x 16 rows each) of the planes at p (quant/packed.h), each as soon
// as it is unpacked: few are alive at once, so that the registers are left to the sums of the rows. Integer sums are
// exact, so the order of the groups is free.
template <int kBits, int kGroup, class Function> PELLUCID_INLINE void upper_bits_of(const uint8_t* p, u8x64 w, Function f) {
  if constexpr (kBits == 5) w = or_bit<kGroup, 4>(w, load64(p + 256));
  if constexpr (kBits == 6) w = or_two_bits_at_4<kGroup % 4>(w, load64(p + 256 + 64 * (kGroup / 4)));
  if constexpr (kBits == 3) w = or_bit<kGroup, 2>(w, load64(p + 128));
  f(Number<kGroup>{}, w);
}
template <int kBits, int kPlane, class Function> PELLUCID_INLINE void groups_of_plane(const uint8_t* p, Function f) {
  const u8x64 x = load64(p + 64 * kPlane);
  if constexpr (kBits == 8) {
    f(Number<kPlane>{}, x);
  } else if constexpr (kBits >= 4) {
    upper_bits_of<kBits, kPlane>(p, low_nibbles(x), f);
    upper_bits_of<kBits, kPlane + 4>(p, high_nibbles(x), f);
  } else {
    upper_bits_of<kBits, 4 * kPlane>(p, two_bits<0>(x), f);
    upper_bits_of<kBits, 4 * kPlane + 1>(p, two_bits<1>(x), f);
    upper_bits_of<kBits, 4 * kPlane + 2>(p, two_bits<2>(x), f);
    upper_bits_of<kBits, 4 * kPlane + 3>(p, two_bits<3>(x), f);
  }
}
template <int kBits, class Function> PELLUCID_INLINE void for_each_group(const uint8_t* p, Function f) {
  groups_of_plane<kBits, 0>(p, f);
  groups_of_plane<kBits, 1>(p, f);
  if constexpr (kBits >= 4) {
    groups_of_plane<kBits, 2>(p, f);
    groups_of_plane<kBits, 3>(p, f);
  }
  if constexpr (kBits == 8) {
    groups_of_plane<kBits, 4>(p, f);
    groups_of_plane<kBits, 5>(p, f);
    groups_of_plane<kBits, 6>(p, f);
    groups_of_plane<kBits, 7>(p, f);
  }
}

// The same for a block of a split panel (quant/packed.h), whose 8-bit values are joined from the planes of their halves.
struct Halves {
  const uint8_t* upper;
  const uint8_t* lower;
};
template <int kPlane, class Function> PELLUCID_INLINE void groups_of_plane(Halves p, Function f) {
  const u8x64 upper = load64(p.upper + 64 * kPlane), lower = load64(p.lower + 64 * kPlane);
  const u8x64 first = join_low_nibbles(upper, lower), second = join_high_nibbles(upper, lower);
  f(Number<kPlane>{}, kWideIsSigned ? flip_high_bits(first) : first);
  f(Number<kPlane + 4>{}, kWideIsSigned ? flip_high_bits(second) : second);
}
template <int kBits, class Function> PELLUCID_INLINE void for_each_group(Halves p, Function f) {
  static_assert(kBits == 8);
  groups_of_plane<0>(p, f);
  groups_of_plane<1>(p, f);
  groups_of_plane<2>(p, f);
  groups_of_plane<3>(p, f);
}

inline f32x16 lanes_f16(const uint8_t* line, int64_t index) {
  return load_f16(reinterpret_cast<const uint16_t*>(line) + 16 * index);
}
inline f32x16 lanes_i8(const uint8_t* p, int64_t index) {
  return to_float(load_i8_to_i32(reinterpret_cast<const int8_t*>(p) + 16 * index));
}
inline f32x16 lanes_u8(const uint8_t* p, int64_t index) { return to_float(load_u8_to_i32(p + 16 * index)); }

// log2 of the offset that the integer dot starts with; -1: none
constexpr int offset_shift(int offset) {
  int shift = -1;
  while (offset) {
    offset /= 2;
    ++shift;
  }
  return shift;
}

template <quant::Format kFormat> struct Packed {
  static constexpr quant::PackedLayout kLayout = quant::packed_layout(kFormat);
  static constexpr Scheme kScheme = kLayout.scheme;
  static constexpr int kBits = kLayout.bits;
  static constexpr bool kWide = kBits == 8;
  static constexpr int kShift = kWide && kWideIsSigned ? -1 : offset_shift(kLayout.offset);
  static constexpr int64_t kBytes = 64 * kBits;  // of a block
};

}  // namespace pellucid::PELLUCID_ISA
