// Panels of quantised values: packed.h has their layout.
#include "quant/packed.h"

#include <algorithm>
#include <cstring>

#include "quant/words.h"

namespace pellucid::quant {
namespace {

// The stored values of one row's block of 32 inputs: groups 0 to 3 and 4 to 7 of packed.h's T, input 4 g in the lowest byte.
struct Groups {
  Words low, high;
};

constexpr uint32_t kNibbles = 0x0f0f0f0f, kTwoBits = 0x03030303, kOneBit = 0x01010101;

// T[g] of four rows.
void to_groups(const Groups (&rows)[4], Words (&t)[8]) {
  transpose(rows[0].low, rows[1].low, rows[2].low, rows[3].low, t);
  transpose(rows[0].high, rows[1].high, rows[2].high, rows[3].high, t + 4);
}

// Four rows' part of the planes of kBits-bit values; `out`: the first line, from their first byte on.
template <int kBits> void write_planes(const Words (&t)[8], uint8_t* out) {
  const auto put = [&](Words line) {
    std::memcpy(out, &line, sizeof line);
    out += 64;
  };
  if constexpr (kBits == 8) {
    for (const Words& line : t) put(line);
    return;
  }
  constexpr int kAbove = kBits >= 4 ? 4 : 0;  // bits that the nibbles have
  if constexpr (kBits >= 4)
    for (int j = 0; j < 4; ++j) put((t[j] & kNibbles) | (t[j + 4] & kNibbles) << 4);
  if constexpr (kBits - kAbove >= 2)
    for (int p = 0; p < 8; p += 4) {
      Words line = t[p] >> kAbove & kTwoBits;
      for (int j = 1; j < 4; ++j) line |= (t[p + j] >> kAbove & kTwoBits) << 2 * j;
      put(line);
    }
  if constexpr ((kBits - kAbove) % 2 == 1) {
    Words line = t[0] >> (kBits - 1) & kOneBit;
    for (int j = 1; j < 8; ++j) line |= (t[j] >> (kBits - 1) & kOneBit) << j;
    put(line);
  }
}

// One row's block of 32 as stored values. `sub`: its number in the super-block.
Groups nibbles_of_32(const uint8_t* qs) {
  const Words w = words_at(qs);
  return {w & kNibbles, w >> 4 & kNibbles};
}
Groups with_fifth_bits(Groups t, const uint8_t* qh) {
  uint32_t bits;
  std::memcpy(&bits, qh, 4);
  const Words w = {bits, bits >> 4, bits >> 8, bits >> 12};
  const auto spread = [](Words n) {  // the lowest four bits to bit 4 of a byte each
    n &= 15;
    return ((n | n << 7 | n << 14 | n << 21) & kOneBit) << 4;
  };
  return {t.low | spread(w), t.high | spread(w >> 16)};
}
// `mask` of 32 bytes that are shifted to the right.
Groups bits_of(const uint8_t* bytes, int shift, uint32_t mask) {
  return {words_at(bytes) >> shift & mask, words_at(bytes + 16) >> shift & mask};
}
// The same as the bits from `above` on of t.
Groups joined(Groups t, const uint8_t* bytes, int shift, uint32_t mask, int above) {
  const Groups upper = bits_of(bytes, shift, mask);
  return {t.low | upper.low << above, t.high | upper.high << above};
}

// Signed bytes + 128.
Groups flipped(const Groups& t) { return {t.low ^ 0x80808080, t.high ^ 0x80808080}; }

Groups values(const BlockQ4_0& x, int) { return nibbles_of_32(x.qs); }
Groups values(const BlockQ4_1& x, int) { return nibbles_of_32(x.qs); }
Groups values(const BlockQ5_0& x, int) { return with_fifth_bits(nibbles_of_32(x.qs), x.qh); }
Groups values(const BlockQ5_1& x, int) { return with_fifth_bits(nibbles_of_32(x.qs), x.qh); }
Groups values(const BlockQ8_0& x, int) { return bits_of(reinterpret_cast<const uint8_t*>(x.qs), 0, ~0u); }
Groups values(const BlockQ4_K& x, int sub) { return bits_of(x.qs + 32 * (sub / 2), 4 * (sub % 2), kNibbles); }
Groups values(const BlockQ5_K& x, int sub) {
  return joined(bits_of(x.qs + 32 * (sub / 2), 4 * (sub % 2), kNibbles), x.qh, sub, kOneBit, 4);
}
Groups values(const BlockQ6_K& x, int sub) {
  const int half = sub / 4, part = sub % 4;  // 128 values; 32 of them
  return joined(bits_of(x.ql + 64 * half + 32 * (part % 2), 4 * (part / 2), kNibbles), x.qh + 32 * half, 2 * part, kTwoBits, 4);
}
Groups values(const BlockQ2_K& x, int sub) { return bits_of(x.qs + 32 * (sub / 4), 2 * (sub % 4), kTwoBits); }
Groups values(const BlockQ3_K& x, int sub) {
  return joined(bits_of(x.qs + 32 * (sub / 4), 2 * (sub % 4), kTwoBits), x.hmask, sub, kOneBit, 2);
}

void put_f16(uint8_t* line, int index, int lane, uint16_t x) { std::memcpy(line + index * 32 + lane * 2, &x, 2); }

// One row's scales of a super-block: the first line, and those of its four pairs, in the order of the pairs' lines.
template <class B> void super_scales(const B& x, int lane, uint8_t* line) {
  put_f16(line, 0, lane, x.d);
  if constexpr (requires { x.dmin; }) put_f16(line, 1, lane, x.dmin);
}
template <class B> void pairs_of_scales_and_mins(const B& x, uint8_t* out) {
  uint8_t scales[8], mins[8];
  unpack_scales(x.scales, scales, mins);
  for (int pair = 0; pair < 4; ++pair)
    for (int i = 0; i < 2; ++i) {
      out[4 * pair + i] = scales[2 * pair + i];
      out[4 * pair + 2 + i] = mins[2 * pair + i];
    }
}
void small_scales(const BlockQ4_K& x, uint8_t* out) { pairs_of_scales_and_mins(x, out); }
void small_scales(const BlockQ5_K& x, uint8_t* out) { pairs_of_scales_and_mins(x, out); }
void small_scales(const BlockQ6_K& x, uint8_t* out) { std::memcpy(out, x.scales, 16); }
void small_scales(const BlockQ3_K& x, uint8_t* out) { unpack_scales_q3(x.scales, reinterpret_cast<int8_t*>(out)); }
void small_scales(const BlockQ2_K& x, uint8_t* out) {
  for (int pair = 0; pair < 4; ++pair)
    for (int i = 0; i < 4; ++i) {
      out[8 * pair + i] = x.scales[4 * pair + i] & 15;
      out[8 * pair + 4 + i] = x.scales[4 * pair + i] >> 4;
    }
}
// For formats of blocks of 32: the scales of block `half` (0 or 1) of the pair.
template <class B> void block_scales(const B& x, int half, int lane, uint8_t* line) {
  put_f16(line, half, lane, x.d);
  if constexpr (requires { x.m; }) put_f16(line, 2 + half, lane, x.m);
}

template <Format kFormat, class B, int kValues>
void pack_quantised(const uint8_t* src, int64_t rows, int64_t inputs, int64_t first, bool wide_is_signed, uint8_t* out) {
  constexpr int64_t kBlocksEach = kValues / kBlock;  // blocks of 32 in a block of the file
  constexpr PackedLayout kLayout = packed_layout(kFormat);
  const int64_t blocks = inputs / kBlock, row_bytes = inputs / kValues * static_cast<int64_t>(sizeof(B));
  const int live = static_cast<int>(std::min<int64_t>(kLanes, rows - first));
  auto block_of = [&](int r, int64_t b) -> const B& {
    return reinterpret_cast<const B*>(src + (first + r) * row_bytes)[b / kBlocksEach];
  };
  constexpr int kPairScales = static_cast<int>(pair_bytes(kLayout.scheme) / kLanes);  // bytes of a row
  [[maybe_unused]] uint8_t scales[kLanes][4 * kPairScales] = {};
  const NextRows next(src, rows, row_bytes, first + kLanes, kLanes, blocks);
  if (live < kLanes) std::memset(out, 0, static_cast<size_t>(panel_bytes(kFormat, inputs)));
  for (int64_t b = 0; b < blocks; ++b) {
    next.prefetch(b, b + 1);
    if constexpr (kValues == kSuperBlock) {
      if (b % 8 == 0) {
        std::memset(out, 0, 64);
        for (int r = 0; r < live; ++r) {
          super_scales(block_of(r, b), r, out);
          small_scales(block_of(r, b), scales[r]);
        }
        out += 64;
      }
    }
    if (b % 2 == 0) {
      if constexpr (kValues == kSuperBlock) {
        for (int i = 0; i < kPairScales; ++i)
          for (int r = 0; r < kLanes; ++r) out[kLanes * i + r] = scales[r][b % 8 / 2 * kPairScales + i];
      } else {
        std::memset(out, 0, static_cast<size_t>(pair_bytes(kLayout.scheme)));
        for (int r = 0; r < live; ++r) {
          block_scales(block_of(r, b), 0, r, out);
          if (b + 1 < blocks) block_scales(block_of(r, b + 1), 1, r, out);
        }
      }
      out += pair_bytes(kLayout.scheme);
    }
    for (int r = 0; r < live; r += 4) {
      Groups four[4] = {};
      for (int i = 0; i < 4 && r + i < live; ++i) {
        four[i] = values(block_of(r + i, b), static_cast<int>(b % kBlocksEach));
        if (kLayout.bits == 8 && !wide_is_signed) four[i] = flipped(four[i]);
      }
      Words t[8];
      to_groups(four, t);
      write_planes<kLayout.bits>(t, out + 4 * r);
    }
    out += 64 * kLayout.bits;
  }
}

}  // namespace

void pack_split_panel(const uint8_t* src, int64_t rows, int64_t inputs, int64_t first, uint8_t* upper, uint8_t* lower) {
  const int64_t blocks = inputs / kBlock, row_bytes = blocks * static_cast<int64_t>(sizeof(BlockQ8_0));
  const int live = static_cast<int>(std::min<int64_t>(kLanes, rows - first));
  std::memset(upper, 0, static_cast<size_t>(live < kLanes ? upper_bytes(inputs) : kSplitHeader));
  if (live < kLanes) std::memset(lower, 0, static_cast<size_t>(lower_bytes(inputs)));
  upper += kSplitHeader;
  const NextRows next(src, rows, row_bytes, first + kLanes, kLanes, blocks);
  for (int64_t b = 0; b < blocks; ++b) {
    next.prefetch(b, b + 1);
    const auto block_of = [&](int r) -> const BlockQ8_0& {
      return reinterpret_cast<const BlockQ8_0*>(src + (first + r) * row_bytes)[b];
    };
    uint8_t* line = b % 2 == 0 ? upper : upper - 64 - kNibbleBytes;
    if (b % 2 == 0) {
      std::memset(line, 0, 64);
      upper += 64;
    }
    for (int r = 0; r < live; ++r) block_scales(block_of(r), static_cast<int>(b % 2), r, line);
    for (int r = 0; r < live; r += 4) {
      Groups four[4] = {};
      for (int i = 0; i < 4 && r + i < live; ++i) four[i] = flipped(values(block_of(r + i), 0));
      Words t[8];
      to_groups(four, t);
      write_planes<4>(t, lower + 4 * r);
      for (Words& words : t) words >>= 4;
      write_planes<4>(t, upper + 4 * r);
    }
    upper += kNibbleBytes;
    lower += kNibbleBytes;
  }
}

void pack_panel(Format format, const uint8_t* src, int64_t rows, int64_t inputs, int64_t first, bool wide_is_signed,
                uint8_t* panel) {
  switch (format) {
    case Format::F32:
    case Format::F16:
    case Format::BF16: return pack_float_panel(format, src, rows, inputs, first, panel);
#define PELLUCID_PACK(name, n) \
  case Format::name: return pack_quantised<Format::name, Block##name, n>(src, rows, inputs, first, wide_is_signed, panel);
    PELLUCID_PACK(Q4_0, kBlock)
    PELLUCID_PACK(Q4_1, kBlock)
    PELLUCID_PACK(Q5_0, kBlock)
    PELLUCID_PACK(Q5_1, kBlock)
    PELLUCID_PACK(Q8_0, kBlock)
    PELLUCID_PACK(Q2_K, kSuperBlock)
    PELLUCID_PACK(Q3_K, kSuperBlock)
    PELLUCID_PACK(Q4_K, kSuperBlock)
    PELLUCID_PACK(Q5_K, kSuperBlock)
    PELLUCID_PACK(Q6_K, kSuperBlock)
#undef PELLUCID_PACK
  }
}

}  // namespace pellucid::quant
