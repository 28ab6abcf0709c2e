// Split panels (quant/packed.h): the whole product, and the screen, which reads only the upper halves of the values.
#pragma once
#include <cstring>

#include "kernels/formats.h"
#include "kernels/kernels.h"
#include "quant/packed.h"

namespace pellucid::PELLUCID_ISA {

// The integer dot of one block of 16 rows and R rows of x: (sum(upper * x) - 8 sum(x)) * 16 + sum(lower * x), which is
// sum((value - 128) * x). The same integer as of a whole 8-bit value, so the same bits from here on.
template <int R>
PELLUCID_INLINE void add_split_block(const uint8_t* upper, const uint8_t* lower, f32x16 d, const uint8_t* x, f32x16 (&acc)[R]) {
  const int8_t* q = reinterpret_cast<const int8_t*>(x);
  const float* scale = reinterpret_cast<const float*>(x + R * 32);
  const int32_t* neg_sum = reinterpret_cast<const int32_t*>(x + R * 40);
  i32x16 dots[R];
  for (int r = 0; r < R; ++r) dots[r] = set1(8 * neg_sum[r]);
  for_each_group<4>(upper, [&](auto number, u8x64 w) PELLUCID_INLINE_LAMBDA {
    constexpr int g = number;
    for (int r = 0; r < R; ++r) dots[r] = dot4(dots[r], w, q + 32 * r + 4 * g);
  });
  for (int r = 0; r < R; ++r) dots[r] = shift_left<4>(dots[r]);
  for_each_group<4>(lower, [&](auto number, u8x64 w) PELLUCID_INLINE_LAMBDA {
    constexpr int g = number;
    for (int r = 0; r < R; ++r) dots[r] = dot4(dots[r], w, q + 32 * r + 4 * g);
  });
  for (int r = 0; r < R; ++r) acc[r] = fma(to_float(dots[r]), mul(d, set1(scale[r])), acc[r]);
}

template <int R>
PELLUCID_INLINE void split_panel_times_tile(const uint8_t* upper, const uint8_t* lower, int64_t blocks, const uint8_t* x,
                                            f32x16 (&acc)[R]) {
  constexpr int64_t kBlockOfTile = R * kActivationBytes;
  const uint8_t* line = upper + quant::kSplitHeader;
  int64_t b = 0;
  for (; b + 2 <= blocks; b += 2, x += 2 * kBlockOfTile, line += 64 + 2 * quant::kNibbleBytes, lower += 2 * quant::kNibbleBytes) {
    add_split_block<R>(line + 64, lower, lanes_f16(line, 0), x, acc);
    add_split_block<R>(line + 64 + quant::kNibbleBytes, lower + quant::kNibbleBytes, lanes_f16(line, 1), x + kBlockOfTile, acc);
  }
  if (b < blocks) add_split_block<R>(line + 64, lower, lanes_f16(line, 0), x, acc);
}

// A split panel as one of whole 8-bit values (quant/packed.h), as this machine's dot wants them: signed, or + 128.
inline void join_panel(const uint8_t* upper, const uint8_t* lower, int64_t blocks, uint8_t* __restrict out) {
  constexpr uint8_t kFlip = kWideIsSigned ? 0x80 : 0;
  const uint8_t* line = upper + quant::kSplitHeader;
  for (int64_t b = 0; b < blocks; ++b, line += quant::kNibbleBytes, lower += quant::kNibbleBytes) {
    if (b % 2 == 0) {
      std::memcpy(out, line, 64);
      line += 64;
      out += 64;
    }
    for (int i = 0; i < quant::kNibbleBytes; ++i) {
      out[i] = static_cast<uint8_t>(((line[i] & 15) << 4 | (lower[i] & 15)) ^ kFlip);
      out[quant::kNibbleBytes + i] = static_cast<uint8_t>(((line[i] & 0xf0) | lower[i] >> 4) ^ kFlip);
    }
    out += 2 * quant::kNibbleBytes;
  }
}

}  // namespace pellucid::PELLUCID_ISA
