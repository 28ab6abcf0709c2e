// How weights lie in memory for the kernels: panels of 16 output rows, the rows in the vector lanes.
//
// A quantised panel is a header with all its scales (16 lanes each), then for each block of 32 inputs the
// quantised values in their own bits. The block's values form eight groups of 4 inputs; group g of lane r is the
// four bytes at 4 r of a 64-byte vector T[g]. Stored planes, 64 bytes each:
//   8 bits: T[0..7]
//   4 bits: T[j] | T[j + 4] << 4                       for j = 0..3
//   2 bits: T[4p] | T[4p+1] << 2 | T[4p+2] << 4 | ...  for p = 0, 1
//   1 bit:  T[0] | T[1] << 1 | ... | T[7] << 7
// 6 bits are a 4-bit plane set and a 2-bit one (the upper bits), 5 are 4 + 1, 3 are 2 + 1.
//
// A float panel is 32 rows: for each input k, 32 values. Rows past the end of the matrix are zero.
#pragma once
#include <cstddef>
#include <cstdint>

#include "quant/blocks.h"

namespace pellucid::quant {

inline constexpr int kLanes = 16;       // rows of a quantised panel
inline constexpr int kFloatRows = 32;   // rows of a float panel

// What the header of a panel holds. 16 lanes each; f16 unless said.
enum class Scheme {
  kFloat,      // no header
  kScale,      // d for each block of 32
  kScaleMin,   // d, then m for each block of 32
  kSuper,      // d, dmin for each 256; u8 scale, u8 min for each 32
  kSuper16,    // d for each 256; two i8 scales for each 32
  kSuper16Min  // d, dmin for each 256; two u8 scales, two u8 mins for each 32
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

// Bytes of the panel's header, padded to 64; num_blocks of 32 inputs.
constexpr int64_t header_bytes(Scheme scheme, int64_t num_blocks) {
  const int64_t supers = (num_blocks + 7) / 8;
  int64_t bytes = 0;
  switch (scheme) {
    case Scheme::kFloat: break;
    case Scheme::kScale: bytes = num_blocks * 32; break;
    case Scheme::kScaleMin: bytes = num_blocks * 64; break;
    case Scheme::kSuper: bytes = supers * 64 + num_blocks * 32; break;
    case Scheme::kSuper16: bytes = supers * 32 + num_blocks * 32; break;
    case Scheme::kSuper16Min: bytes = supers * 64 + num_blocks * 64; break;
  }
  return (bytes + 63) / 64 * 64;
}

constexpr int panel_rows(Format format) {
  return packed_layout(format).scheme == Scheme::kFloat ? kFloatRows : kLanes;
}

constexpr int64_t panel_bytes(Format format, int64_t inputs) {
  const PackedLayout layout = packed_layout(format);
  if (layout.scheme == Scheme::kFloat) return (inputs * kFloatRows * layout.bits / 8 + 63) / 64 * 64;
  const int64_t blocks = inputs / kBlock;
  return header_bytes(layout.scheme, blocks) + blocks * 64 * layout.bits;
}

// Packs rows [first, first + panel_rows) of a matrix of `rows` x `inputs` values whose file bytes are `src`
// (row by row) into `panel`. 8-bit values are stored as they are if wide_is_signed, else + 128.
void pack_panel(Format format, const uint8_t* src, int64_t rows, int64_t inputs, int64_t first, bool wide_is_signed,
                uint8_t* panel);

}  // namespace pellucid::quant
