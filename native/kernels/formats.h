// The packed formats as the matmul kernel sees them: how a block of 32 inputs becomes eight vectors of bytes, and
// where its scales are. One line each at the end.
#pragma once
#include "quant/packed.h"
#include "simd/simd.h"

namespace pellucid::PELLUCID_ISA {

using quant::Scheme;

// Eight groups of 4 inputs x 16 rows from the planes at p (quant/packed.h).
template <int kBits> inline void unpack(const uint8_t* p, u8x64 (&w)[8]) {
  if constexpr (kBits == 8) {
    for (int g = 0; g < 8; ++g) w[g] = load64(p + 64 * g);
  } else if constexpr (kBits >= 4) {
    for (int j = 0; j < 4; ++j) {
      const u8x64 x = load64(p + 64 * j);
      w[j] = low_nibbles(x);
      w[j + 4] = high_nibbles(x);
    }
    if constexpr (kBits == 5) {
      const u8x64 h = load64(p + 256);
      w[0] = or_bit<0, 4>(w[0], h);
      w[1] = or_bit<1, 4>(w[1], h);
      w[2] = or_bit<2, 4>(w[2], h);
      w[3] = or_bit<3, 4>(w[3], h);
      w[4] = or_bit<4, 4>(w[4], h);
      w[5] = or_bit<5, 4>(w[5], h);
      w[6] = or_bit<6, 4>(w[6], h);
      w[7] = or_bit<7, 4>(w[7], h);
    } else if constexpr (kBits == 6) {
      const u8x64 a = load64(p + 256), b = load64(p + 320);
      w[0] = or_two_bits_at_4<0>(w[0], a);
      w[1] = or_two_bits_at_4<1>(w[1], a);
      w[2] = or_two_bits_at_4<2>(w[2], a);
      w[3] = or_two_bits_at_4<3>(w[3], a);
      w[4] = or_two_bits_at_4<0>(w[4], b);
      w[5] = or_two_bits_at_4<1>(w[5], b);
      w[6] = or_two_bits_at_4<2>(w[6], b);
      w[7] = or_two_bits_at_4<3>(w[7], b);
    }
  } else {
    const u8x64 a = load64(p), b = load64(p + 64);
    w[0] = two_bits<0>(a);
    w[1] = two_bits<1>(a);
    w[2] = two_bits<2>(a);
    w[3] = two_bits<3>(a);
    w[4] = two_bits<0>(b);
    w[5] = two_bits<1>(b);
    w[6] = two_bits<2>(b);
    w[7] = two_bits<3>(b);
    if constexpr (kBits == 3) {
      const u8x64 h = load64(p + 128);
      w[0] = or_bit<0, 2>(w[0], h);
      w[1] = or_bit<1, 2>(w[1], h);
      w[2] = or_bit<2, 2>(w[2], h);
      w[3] = or_bit<3, 2>(w[3], h);
      w[4] = or_bit<4, 2>(w[4], h);
      w[5] = or_bit<5, 2>(w[5], h);
      w[6] = or_bit<6, 2>(w[6], h);
      w[7] = or_bit<7, 2>(w[7], h);
    }
  }
}

inline f32x16 lanes_f16(const uint8_t* line, int64_t index) {
  return load_f16(reinterpret_cast<const uint16_t*>(line) + 16 * index);
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
