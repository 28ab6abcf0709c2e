#include "quant/packed.h"

#include <algorithm>
#include <cstring>

#include "wide.h"

namespace pellucid::quant {
namespace {

// The stored values of one block of 32 inputs, 16 rows: row r's 32 bytes at 32 r.
using Rows = uint8_t[kLanes][kBlock];
// The same as eight vectors of 64 bytes.
using Groups = uint8_t[8][64];

void to_groups(const Rows& rows, Groups& groups) {
  for (int r = 0; r < kLanes; ++r)
    for (int g = 0; g < 8; ++g) std::memcpy(&groups[g][4 * r], &rows[r][4 * g], 4);
}

// Writes the planes of `bits`-bit values; returns the end.
uint8_t* write_planes(int bits, const Groups& t, uint8_t* out) {
  if (bits == 8) {
    std::memcpy(out, t, sizeof t);
    return out + sizeof t;
  }
  int done = 0;  // bits written so far
  if (bits >= 4) {
    for (int j = 0; j < 4; ++j, out += 64)
      for (int i = 0; i < 64; ++i) out[i] = static_cast<uint8_t>((t[j][i] & 15) | t[j + 4][i] << 4);
    done = 4;
  }
  if (bits - done >= 2) {
    for (int p = 0; p < 2; ++p, out += 64)
      for (int i = 0; i < 64; ++i) {
        uint8_t x = 0;
        for (int j = 0; j < 4; ++j) x = static_cast<uint8_t>(x | ((t[4 * p + j][i] >> done) & 3) << (2 * j));
        out[i] = x;
      }
    done += 2;
  }
  if (bits - done == 1) {
    for (int i = 0; i < 64; ++i) {
      uint8_t x = 0;
      for (int j = 0; j < 8; ++j) x = static_cast<uint8_t>(x | ((t[j][i] >> done) & 1) << j);
      out[i] = x;
    }
    out += 64;
  }
  return out;
}

// Eight vectors of bytes: their upper and their lower halves, as 4-bit plane sets.
PELLUCID_WIDE void split_nibbles(const uint8_t* __restrict t, uint8_t* __restrict upper, uint8_t* __restrict lower) {
  for (int i = 0; i < 256; ++i) {
    upper[i] = static_cast<uint8_t>(t[i] >> 4 | (t[256 + i] & 0xf0));
    lower[i] = static_cast<uint8_t>((t[i] & 15) | t[256 + i] << 4);
  }
}

void nibbles_of_32(const uint8_t* qs, uint8_t* out) {
  for (int i = 0; i < 16; ++i) {
    out[i] = qs[i] & 15;
    out[i + 16] = qs[i] >> 4;
  }
}

void fifth_bits(const uint8_t* qh, uint8_t* out) {
  uint32_t bits;
  std::memcpy(&bits, qh, 4);
  for (int i = 0; i < kBlock; ++i) out[i] = static_cast<uint8_t>(out[i] | ((bits >> i) & 1) << 4);
}

// One row's block of 32 (number `b` of the row) as stored values.
void values(const BlockQ4_0& x, int, bool, uint8_t* out) { nibbles_of_32(x.qs, out); }
void values(const BlockQ4_1& x, int, bool, uint8_t* out) { nibbles_of_32(x.qs, out); }
void values(const BlockQ5_0& x, int, bool, uint8_t* out) {
  nibbles_of_32(x.qs, out);
  fifth_bits(x.qh, out);
}
void values(const BlockQ5_1& x, int, bool, uint8_t* out) {
  nibbles_of_32(x.qs, out);
  fifth_bits(x.qh, out);
}
void values(const BlockQ8_0& x, int, bool wide_is_signed, uint8_t* out) {
  const uint8_t flip = wide_is_signed ? 0 : 0x80;
  for (int i = 0; i < kBlock; ++i) out[i] = static_cast<uint8_t>(static_cast<uint8_t>(x.qs[i]) ^ flip);
}
void values(const BlockQ4_K& x, int sub, bool, uint8_t* out) {
  const uint8_t* qs = x.qs + 32 * (sub / 2);
  for (int i = 0; i < kBlock; ++i) out[i] = (qs[i] >> (4 * (sub % 2))) & 15;
}
void values(const BlockQ5_K& x, int sub, bool, uint8_t* out) {
  const uint8_t* qs = x.qs + 32 * (sub / 2);
  for (int i = 0; i < kBlock; ++i)
    out[i] = static_cast<uint8_t>(((qs[i] >> (4 * (sub % 2))) & 15) | ((x.qh[i] >> sub) & 1) << 4);
}
void values(const BlockQ6_K& x, int sub, bool, uint8_t* out) {
  const int half = sub / 4, part = sub % 4;  // 128 values; 32 of them
  const uint8_t* ql = x.ql + 64 * half + 32 * (part % 2);
  const uint8_t* qh = x.qh + 32 * half;
  for (int i = 0; i < kBlock; ++i)
    out[i] = static_cast<uint8_t>(((ql[i] >> (4 * (part / 2))) & 15) | ((qh[i] >> (2 * part)) & 3) << 4);
}
void values(const BlockQ2_K& x, int sub, bool, uint8_t* out) {
  for (int i = 0; i < kBlock; ++i) out[i] = (x.qs[32 * (sub / 4) + i] >> (2 * (sub % 4))) & 3;
}
void values(const BlockQ3_K& x, int sub, bool, uint8_t* out) {
  for (int i = 0; i < kBlock; ++i)
    out[i] = static_cast<uint8_t>(((x.qs[32 * (sub / 4) + i] >> (2 * (sub % 4))) & 3) | ((x.hmask[i] >> sub) & 1) << 2);
}

void put_f16(uint8_t* line, int index, int lane, uint16_t x) { std::memcpy(line + index * 32 + lane * 2, &x, 2); }
void put_u8(uint8_t* line, int index, int lane, uint8_t x) { line[index * 16 + lane] = x; }

// One row's scales of a super-block (first line) and of one of its pairs (0 .. 3).
template <class B> void super_scales(const B& x, int lane, uint8_t* line) {
  put_f16(line, 0, lane, x.d);
  if constexpr (requires { x.dmin; }) put_f16(line, 1, lane, x.dmin);
}
template <class B> void pair_of_scales_and_mins(const B& x, int pair, int lane, uint8_t* line) {
  uint8_t scales[8], mins[8];
  unpack_scales(x.scales, scales, mins);
  for (int i = 0; i < 2; ++i) {
    put_u8(line, i, lane, scales[2 * pair + i]);
    put_u8(line, 2 + i, lane, mins[2 * pair + i]);
  }
}
void pair_scales(const BlockQ4_K& x, int pair, int lane, uint8_t* line) { pair_of_scales_and_mins(x, pair, lane, line); }
void pair_scales(const BlockQ5_K& x, int pair, int lane, uint8_t* line) { pair_of_scales_and_mins(x, pair, lane, line); }
void pair_scales(const BlockQ6_K& x, int pair, int lane, uint8_t* line) {
  for (int i = 0; i < 4; ++i) put_u8(line, i, lane, static_cast<uint8_t>(x.scales[4 * pair + i]));
}
void pair_scales(const BlockQ3_K& x, int pair, int lane, uint8_t* line) {
  int8_t scales[16];
  unpack_scales_q3(x.scales, scales);
  for (int i = 0; i < 4; ++i) put_u8(line, i, lane, static_cast<uint8_t>(scales[4 * pair + i]));
}
void pair_scales(const BlockQ2_K& x, int pair, int lane, uint8_t* line) {
  for (int i = 0; i < 4; ++i) {
    put_u8(line, i, lane, x.scales[4 * pair + i] & 15);
    put_u8(line, 4 + i, lane, x.scales[4 * pair + i] >> 4);
  }
}
// The same for formats of blocks of 32: the scales of block `half` (0 or 1) of the pair.
template <class B> void block_scales(const B& x, int half, int lane, uint8_t* line) {
  put_f16(line, half, lane, x.d);
  if constexpr (requires { x.m; }) put_f16(line, 2 + half, lane, x.m);
}

template <class B, int kValues>
void pack_quantised(Format format, const uint8_t* src, int64_t rows, int64_t inputs, int64_t first, bool wide_is_signed,
                    uint8_t* out) {
  constexpr int64_t kBlocksEach = kValues / kBlock;  // blocks of 32 in a block of the file
  const PackedLayout layout = packed_layout(format);
  const int64_t blocks = inputs / kBlock, row_bytes = inputs / kValues * static_cast<int64_t>(sizeof(B));
  const int live = static_cast<int>(std::min<int64_t>(kLanes, rows - first));
  auto block_of = [&](int r, int64_t b) -> const B& {
    return reinterpret_cast<const B*>(src + (first + r) * row_bytes)[b / kBlocksEach];
  };
  Rows q = {};
  Groups t;
  for (int64_t b = 0; b < blocks; ++b) {
    if constexpr (kValues == kSuperBlock) {
      if (b % 8 == 0) {
        std::memset(out, 0, 64);
        for (int r = 0; r < live; ++r) super_scales(block_of(r, b), r, out);
        out += 64;
      }
    }
    if (b % 2 == 0) {
      std::memset(out, 0, static_cast<size_t>(pair_bytes(layout.scheme)));
      for (int r = 0; r < live; ++r) {
        if constexpr (kValues == kSuperBlock) {
          pair_scales(block_of(r, b), static_cast<int>(b % 8 / 2), r, out);
        } else {
          block_scales(block_of(r, b), 0, r, out);
          if (b + 1 < blocks) block_scales(block_of(r, b + 1), 1, r, out);
        }
      }
      out += pair_bytes(layout.scheme);
    }
    for (int r = 0; r < live; ++r) values(block_of(r, b), static_cast<int>(b % kBlocksEach), wide_is_signed, q[r]);
    to_groups(q, t);
    out = write_planes(layout.bits, t, out);
  }
}

template <class T>
void pack_float(const uint8_t* src, int64_t rows, int64_t inputs, int64_t first, uint8_t* panel) {
  T* out = reinterpret_cast<T*>(panel);
  const int live = static_cast<int>(std::min<int64_t>(kFloatRows, rows - first));
  constexpr int64_t kStep = 16;  // inputs at a time: whole cache lines of the source
  for (int64_t k0 = 0; k0 < inputs; k0 += kStep) {
    const int64_t k1 = std::min(inputs, k0 + kStep);
    for (int r = 0; r < kFloatRows; ++r)
      for (int64_t k = k0; k < k1; ++k) {
        T x = 0;
        if (r < live) std::memcpy(&x, src + ((first + r) * inputs + k) * static_cast<int64_t>(sizeof(T)), sizeof(T));
        out[k * kFloatRows + r] = x;
      }
  }
}

}  // namespace

void pack_pair_panel(const uint8_t* src, int64_t rows, int64_t inputs, int64_t first, uint8_t* panel) {
  const int live = static_cast<int>(std::min<int64_t>(kFloatRows, rows - first));
  std::memset(panel, 0, static_cast<size_t>(pair_panel_bytes(inputs)));
  for (int64_t block = 0; block < pair_blocks(inputs); ++block) {
    const int64_t k = block * kPairInputs, count = std::min<int64_t>(kPairInputs, inputs - k);
    for (int r = 0; r < live; ++r) {
      uint16_t values[kPairInputs] = {};
      std::memcpy(values, src + ((first + r) * inputs + k) * 2, static_cast<size_t>(count) * 2);
      for (uint16_t& v : values) v = (v & 0x7fff) < kLeastBf16 ? 0 : v;
      for (int p = 0; p < kPairInputs / 2; ++p) std::memcpy(panel + (p * kFloatRows + r) * 4, values + 2 * p, 4);
    }
    panel += kPairInputs * kFloatRows * 2;
  }
}

void pack_split_panel(const uint8_t* src, int64_t rows, int64_t inputs, int64_t first, uint8_t* upper, uint8_t* lower) {
  const int64_t blocks = inputs / kBlock, row_bytes = blocks * static_cast<int64_t>(sizeof(BlockQ8_0));
  const int live = static_cast<int>(std::min<int64_t>(kLanes, rows - first));
  std::memset(upper, 0, kSplitHeader);
  upper += kSplitHeader;
  Rows q = {};
  Groups t;
  for (int64_t b = 0; b < blocks; ++b) {
    const auto block_of = [&](int r) -> const BlockQ8_0& {
      return reinterpret_cast<const BlockQ8_0*>(src + (first + r) * row_bytes)[b];
    };
    uint8_t* line = b % 2 == 0 ? upper : upper - 64 - kNibbleBytes;
    if (b % 2 == 0) {
      std::memset(line, 0, 64);
      upper += 64;
    }
    for (int r = 0; r < live; ++r) {
      block_scales(block_of(r), static_cast<int>(b % 2), r, line);
      values(block_of(r), 0, false, q[r]);
    }
    to_groups(q, t);
    split_nibbles(&t[0][0], upper, lower);
    upper += kNibbleBytes;
    lower += kNibbleBytes;
  }
}

void pack_panel(Format format, const uint8_t* src, int64_t rows, int64_t inputs, int64_t first, bool wide_is_signed,
                uint8_t* panel) {
  switch (format) {
    case Format::F32: return pack_float<uint32_t>(src, rows, inputs, first, panel);
    case Format::F16:
    case Format::BF16: return pack_float<uint16_t>(src, rows, inputs, first, panel);
#define PELLUCID_PACK(name, n) \
  case Format::name: return pack_quantised<Block##name, n>(format, src, rows, inputs, first, wide_is_signed, panel);
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
