// Weight formats as they lie in a file: block structs (little endian, packed, any alignment), sizes, and scalar
// dequantisation, which is the reference that every packed kernel is tested against. Knows no instruction set.
//
// To add a format: its struct here, its line in PELLUCID_FORMATS, and `template <> void dequantize<Format::X>`
// in the file of its family.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>

#include "quant/half.h"

namespace pellucid::quant {

inline constexpr int kBlock = 32;        // values in a block of the first generation (Q4_0 ... Q8_0)
inline constexpr int kSuperBlock = 256;  // values in a super-block of the k-quants
inline constexpr int kScaleBytes = 12;   // sixteen 6-bit numbers, packed (Q3_K, Q4_K, Q5_K)

#pragma pack(push, 1)
struct BlockF32 { uint32_t bits; };
struct BlockF16 { uint16_t bits; };
struct BlockBF16 { uint16_t bits; };

// Nibbles: byte i of `qs` holds value i (low half) and value i + 16 (high half).
struct BlockQ4_0 {  // d * (q - 8)
  uint16_t d;       // float16
  uint8_t qs[kBlock / 2];
};
struct BlockQ4_1 {  // d * q + m
  uint16_t d, m;    // float16
  uint8_t qs[kBlock / 2];
};
struct BlockQ5_0 {  // d * (q - 16)
  uint16_t d;
  uint8_t qh[4];  // bit i of the little-endian word: bit 4 of value i
  uint8_t qs[kBlock / 2];
};
struct BlockQ5_1 {  // d * q + m
  uint16_t d, m;
  uint8_t qh[4];
  uint8_t qs[kBlock / 2];
};
struct BlockQ8_0 {  // d * q
  uint16_t d;
  int8_t qs[kBlock];
};

// Two bits each: 128 values share 32 bytes; value 32 * j + i of the 128 is bits 2j, 2j + 1 of byte i.
struct BlockQ2_K {                  // sixteen groups of 16: (d * scale) * q - (dmin * min)
  uint8_t scales[kSuperBlock / 16];  // low nibble: scale; high nibble: min
  uint8_t qs[kSuperBlock / 4];
  uint16_t d, dmin;  // float16
};
struct BlockQ3_K {                 // sixteen groups of 16: (d * (scale - 32)) * (q - (high bit ? 0 : 4))
  uint8_t hmask[kSuperBlock / 8];  // value 32 * j + i: bit j of byte i
  uint8_t qs[kSuperBlock / 4];     // as in Q2_K
  uint8_t scales[kScaleBytes];     // see unpack_scales_q3
  uint16_t d;
};
// Nibbles: 64 values share 32 bytes; byte i holds value i (low half) and value i + 32 (high half) of the 64.
struct BlockQ4_K {  // eight groups of 32: (d * scale) * q - (dmin * min)
  uint16_t d, dmin;
  uint8_t scales[kScaleBytes];  // see unpack_scales
  uint8_t qs[kSuperBlock / 2];
};
struct BlockQ5_K {  // as Q4_K, with a fifth bit
  uint16_t d, dmin;
  uint8_t scales[kScaleBytes];
  uint8_t qh[kSuperBlock / 8];  // value 32 * j + i: bit j of byte i
  uint8_t qs[kSuperBlock / 2];
};
struct BlockQ6_K {               // sixteen groups of 16: (d * scale) * (q - 32)
  uint8_t ql[kSuperBlock / 2];   // 128 values share 64 bytes: byte i holds value i and value i + 64
  uint8_t qh[kSuperBlock / 4];   // as `qs` of Q2_K
  int8_t scales[kSuperBlock / 16];
  uint16_t d;
};
#pragma pack(pop)

// X(name, values in a block). The order is the order of `Format`.
#define PELLUCID_FORMATS(X)                                                                             \
  X(F32, 1) X(F16, 1) X(BF16, 1)                                                                        \
  X(Q4_0, kBlock) X(Q4_1, kBlock) X(Q5_0, kBlock) X(Q5_1, kBlock) X(Q8_0, kBlock)                       \
  X(Q2_K, kSuperBlock) X(Q3_K, kSuperBlock) X(Q4_K, kSuperBlock) X(Q5_K, kSuperBlock) X(Q6_K, kSuperBlock)

enum class Format : int {
#define PELLUCID_X(name, values) name,
  PELLUCID_FORMATS(PELLUCID_X)
#undef PELLUCID_X
};

struct FormatInfo {
  std::string_view name;
  Format format;
  int block_size;   // values
  int block_bytes;
};

inline constexpr FormatInfo kFormats[] = {
#define PELLUCID_X(name, values) {#name, Format::name, values, static_cast<int>(sizeof(Block##name))},
    PELLUCID_FORMATS(PELLUCID_X)
#undef PELLUCID_X
};
inline constexpr int kNumFormats = static_cast<int>(sizeof(kFormats) / sizeof(kFormats[0]));

constexpr const FormatInfo& info(Format format) { return kFormats[static_cast<int>(format)]; }

// nullptr if there is no format of this name.
constexpr const FormatInfo* find_format(std::string_view name) {
  for (const FormatInfo& entry : kFormats)
    if (entry.name == name) return &entry;
  return nullptr;
}

static_assert(sizeof(BlockQ4_0) == 18 && sizeof(BlockQ4_1) == 20 && sizeof(BlockQ5_0) == 22);
static_assert(sizeof(BlockQ5_1) == 24 && sizeof(BlockQ8_0) == 34 && sizeof(BlockQ2_K) == 84);
static_assert(sizeof(BlockQ3_K) == 110 && sizeof(BlockQ4_K) == 144 && sizeof(BlockQ5_K) == 176);
static_assert(sizeof(BlockQ6_K) == 210 && sizeof(BlockF32) == 4 && sizeof(BlockF16) == 2);

// Q4_K, Q5_K: eight 6-bit scales and eight 6-bit mins from 12 bytes. Bytes 0-3 and 4-7: low six bits of the first
// four scales and mins; their upper two bits, and the nibbles of bytes 8-11, make the last four.
inline void unpack_scales(const uint8_t packed[kScaleBytes], uint8_t scales[8], uint8_t mins[8]) {
  uint32_t low_scales, low_mins, nibbles;  // four bytes each
  std::memcpy(&low_scales, packed, 4);
  std::memcpy(&low_mins, packed + 4, 4);
  std::memcpy(&nibbles, packed + 8, 4);
  const uint32_t words[4] = {low_scales & 0x3f3f3f3f, (nibbles & 0x0f0f0f0f) | (low_scales >> 6 & 0x03030303) << 4,
                             low_mins & 0x3f3f3f3f, (nibbles >> 4 & 0x0f0f0f0f) | (low_mins >> 6 & 0x03030303) << 4};
  std::memcpy(scales, words, 8);
  std::memcpy(mins, words + 2, 8);
}

// Q3_K: sixteen 6-bit scales, less 32. Low nibbles: bytes 0-7 (low halves, then high halves); upper two bits:
// bytes 8-11 (bits 0-1 of each, then 2-3, ...).
inline void unpack_scales_q3(const uint8_t packed[kScaleBytes], int8_t scales[16]) {
  for (int i = 0; i < 16; ++i) {
    const int low = (packed[i % 8] >> (i / 8 * 4)) & 15;
    const int high = (packed[8 + i % 4] >> (i / 4 * 2)) & 3;
    scales[i] = static_cast<int8_t>((low | high << 4) - 32);
  }
}

// `num_blocks` blocks -> num_blocks * block_size values. src may be misaligned.
template <Format>
void dequantize(const uint8_t* src, float* dst, int64_t num_blocks);

#define PELLUCID_X(name, values) \
  template <>                    \
  void dequantize<Format::name>(const uint8_t* src, float* dst, int64_t num_blocks);
PELLUCID_FORMATS(PELLUCID_X)
#undef PELLUCID_X

// n values; n is a multiple of the format's block size. Bit-equal to the `gguf` package (NaN payloads aside).
void dequantize_row(Format format, const uint8_t* src, float* dst, int64_t n);

}  // namespace pellucid::quant
