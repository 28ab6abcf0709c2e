// How weights lie in memory for the kernels: panels of 16 output rows, the rows in the vector lanes.
//
// A quantised panel is read from its first byte to its last, in order, for the sake of the memory's prefetchers
// (scales gathered in a header before the values halved the speed). It consists of pairs of blocks of 32 inputs:
//   [a line of super-block scales, before every fourth pair, for 256-value formats]
//   one or two lines of scales for the pair, then the values of the first block, then those of the second.
// A line is 64 bytes. An odd number of blocks ends with half a pair: its lines of scales, one block.
//
// A block's values form eight groups of 4 inputs; group g of row r is the four bytes at 4 r of a 64-byte vector T[g].
// Stored planes, 64 bytes each:
//   8 bits: T[0..7]
//   4 bits: T[j] | T[j + 4] << 4                       for j = 0..3
//   2 bits: T[4p] | T[4p+1] << 2 | T[4p+2] << 4 | ...  for p = 0, 1
//   1 bit:  T[0] | T[1] << 1 | ... | T[7] << 7
// 6 bits are a 4-bit plane set and a 2-bit one (the upper bits), 5 are 4 + 1, 3 are 2 + 1.
//
// A split panel (8 bits only, for a head that is screened: native/screen.h) is two streams, so that a reader can do with
// the upper half of every value. Values are stored + 128, whatever the machine. For each panel of 16 rows
//   upper: a line of 16 float32 radii; four lines of the lower nibbles of the hot inputs (native/screen.h): number k of row
//          r in byte 4 r + k % 4 of line k / 8, in the upper half of the byte where k / 4 is odd; then, for each pair of
//          blocks, the line of scales and two 4-bit plane sets of value >> 4
//   lower: for each block a 4-bit plane set of value & 15
//
// A float panel is 32 rows: for each input k, 32 values. Rows past the end of the matrix are zero.
//
// A panel of BF16 in pairs (for activations that are bf16 too: kernels/bf16_pairs.cc) is, for each pair of inputs, two lines
// of 16 rows x 2 inputs; the inputs are filled up with zeros to a multiple of kPairInputs. Values below kLeastBf16 are zero.
#pragma once
#include <cstddef>
#include <cstdint>

#include "quant/blocks.h"

namespace pellucid::quant {

inline constexpr int kLanes = 16;       // rows of a quantised panel
inline constexpr int kFloatRows = 32;   // rows of a float panel
inline constexpr int kHotInputs = 32;   // inputs whose lower bits a split panel holds twice
inline constexpr int kNibbleBytes = 256;  // of a 4-bit plane set: a block of 32 inputs, 16 rows

// The scales of a pair of blocks, each for 16 rows; f16 unless said.
enum class Scheme {
  kFloat,      // none
  kScale,      // d[2]
  kScaleMin,   // d[2], m[2]
  kSuper,      // d, dmin of the super-block; u8 scale[2], u8 min[2]
  kSuper16,    // d of the super-block; i8 scale[2][2] (of each half of a block)
  kSuper16Min  // d, dmin of the super-block; u8 scale[2][2], u8 min[2][2]
};

struct PackedLayout {
  Scheme scheme;
  int bits;    // of a stored value
  int offset;  // subtracted from a stored value: 0 or a power of two (128 only where the kernel wants unsigned bytes)
};

constexpr PackedLayout packed_layout(Format format) {
  switch (format) {
    case Format::Q4_0: return {Scheme::kScale, 4, 8};
    case Format::Q5_0: return {Scheme::kScale, 5, 16};
    case Format::Q8_0: return {Scheme::kScale, 8, 128};
    case Format::Q4_1: return {Scheme::kScaleMin, 4, 0};
    case Format::Q5_1: return {Scheme::kScaleMin, 5, 0};
    case Format::Q4_K: return {Scheme::kSuper, 4, 0};
    case Format::Q5_K: return {Scheme::kSuper, 5, 0};
    case Format::Q6_K: return {Scheme::kSuper16, 6, 32};
    case Format::Q3_K: return {Scheme::kSuper16, 3, 4};
    case Format::Q2_K: return {Scheme::kSuper16Min, 2, 0};
    case Format::F32: return {Scheme::kFloat, 32, 0};
    default: return {Scheme::kFloat, 16, 0};
  }
}

constexpr bool has_super(Scheme scheme) { return scheme >= Scheme::kSuper; }
// Bytes of the scales of a pair of blocks.
constexpr int64_t pair_bytes(Scheme scheme) {
  return scheme == Scheme::kFloat ? 0 : scheme == Scheme::kScaleMin || scheme == Scheme::kSuper16Min ? 128 : 64;
}

constexpr int panel_rows(Format format) {
  return packed_layout(format).scheme == Scheme::kFloat ? kFloatRows : kLanes;
}

constexpr int64_t panel_bytes(Format format, int64_t inputs) {
  const PackedLayout layout = packed_layout(format);
  if (layout.scheme == Scheme::kFloat) return (inputs * kFloatRows * layout.bits / 8 + 63) / 64 * 64;
  const int64_t blocks = inputs / kBlock;
  const int64_t supers = has_super(layout.scheme) ? (blocks + 7) / 8 : 0;
  return supers * 64 + (blocks + 1) / 2 * pair_bytes(layout.scheme) + blocks * 64 * layout.bits;
}

// Packs rows [first, first + panel_rows) of a matrix of `rows` x `inputs` values whose file bytes are `src`
// (row by row) into `panel`. 8-bit values are stored as they are if wide_is_signed, else + 128.
void pack_panel(Format format, const uint8_t* src, int64_t rows, int64_t inputs, int64_t first, bool wide_is_signed,
                uint8_t* panel);
void pack_float_panel(Format format, const uint8_t* src, int64_t rows, int64_t inputs, int64_t first, uint8_t* panel);

// --- panels of BF16 in pairs ------------------------------------------------------------------------------------

constexpr bool can_pair(Format format) { return format == Format::BF16; }
inline constexpr int kPairInputs = 8;  // what the inputs are a multiple of
// The bits of 2^-56, without the sign. A product of two bf16 from here on is a multiple of 2^-126, and so are sums of them,
// rounded to float32 or not: no sum is a subnormal number, which processors treat in several ways.
inline constexpr uint16_t kLeastBf16 = 0x2380;
constexpr int64_t pair_blocks(int64_t inputs) { return (inputs + kPairInputs - 1) / kPairInputs; }
constexpr int64_t pair_panel_bytes(int64_t inputs) { return pair_blocks(inputs) * kPairInputs * kFloatRows * 2; }
// As pack_panel, for BF16.
void pack_pair_panel(const uint8_t* src, int64_t rows, int64_t inputs, int64_t first, uint8_t* panel);

// --- split panels of Q8_0 -------------------------------------------------------------------------------------

constexpr bool can_split(Format format) { return format == Format::Q8_0; }
inline constexpr int64_t kSplitHeader = 64 + kHotInputs * 8;
constexpr int64_t upper_bytes(int64_t inputs) {
  const int64_t blocks = inputs / kBlock;
  return kSplitHeader + (blocks + 1) / 2 * 64 + blocks * kNibbleBytes;
}
constexpr int64_t lower_bytes(int64_t inputs) { return inputs / kBlock * kNibbleBytes; }

// As pack_panel, into both streams. The header stays zero until screen_header fills it.
void pack_split_panel(const uint8_t* src, int64_t rows, int64_t inputs, int64_t first, uint8_t* upper, uint8_t* lower);

// Fills the header of a packed panel for these hot inputs (ascending, num_hot <= kHotInputs): their lower nibbles, and
// for each row the radius: the largest norm, over its blocks, of (lower nibble - 8) of the inputs that are not hot;
// rounded up, and never below kLeastRadius.
inline constexpr float kLeastRadius = 8.0f;
void screen_header(int64_t inputs, const int32_t* hot, int num_hot, const uint8_t* lower, uint8_t* upper);

}  // namespace pellucid::quant
