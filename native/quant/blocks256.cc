// The k-quants: super-blocks of 256 values; groups of 16 or 32 with small integer scales of a float16 scale.
// The order of the float32 operations is the reference's: (d * scale) first, then times q, then minus (dmin * min).
#include "quant/blocks.h"

namespace pellucid::quant {

template <>
void dequantize<Format::Q2_K>(const uint8_t* src, float* dst, int64_t num_blocks) {
  const auto* blocks = reinterpret_cast<const BlockQ2_K*>(src);
  for (int64_t b = 0; b < num_blocks; ++b, dst += kSuperBlock) {
    const BlockQ2_K& block = blocks[b];
    const float d = f16_to_f32(block.d), dmin = f16_to_f32(block.dmin);
    for (int group = 0; group < 16; ++group) {
      const float scale = d * static_cast<float>(block.scales[group] & 15);
      const float min = dmin * static_cast<float>(block.scales[group] >> 4);
      const uint8_t* qs = block.qs + group / 8 * 32 + group % 2 * 16;
      const int shift = group / 2 % 4 * 2;
      for (int i = 0; i < 16; ++i) dst[group * 16 + i] = scale * static_cast<float>(qs[i] >> shift & 3) - min;
    }
  }
}

template <>
void dequantize<Format::Q3_K>(const uint8_t* src, float* dst, int64_t num_blocks) {
  const auto* blocks = reinterpret_cast<const BlockQ3_K*>(src);
  for (int64_t b = 0; b < num_blocks; ++b, dst += kSuperBlock) {
    const BlockQ3_K& block = blocks[b];
    const float d = f16_to_f32(block.d);
    int8_t scales[16];
    unpack_scales_q3(block.scales, scales);
    for (int group = 0; group < 16; ++group) {
      const float scale = d * static_cast<float>(scales[group]);
      const uint8_t* qs = block.qs + group / 8 * 32 + group % 2 * 16;
      const uint8_t* high = block.hmask + group % 2 * 16;
      const int shift = group / 2 % 4 * 2;
      for (int i = 0; i < 16; ++i) {
        const int q = (qs[i] >> shift & 3) - ((high[i] >> (group / 2) & 1) ? 0 : 4);
        dst[group * 16 + i] = scale * static_cast<float>(q);
      }
    }
  }
}

template <>
void dequantize<Format::Q4_K>(const uint8_t* src, float* dst, int64_t num_blocks) {
  const auto* blocks = reinterpret_cast<const BlockQ4_K*>(src);
  for (int64_t b = 0; b < num_blocks; ++b, dst += kSuperBlock) {
    const BlockQ4_K& block = blocks[b];
    const float d = f16_to_f32(block.d), dmin = f16_to_f32(block.dmin);
    uint8_t scales[8], mins[8];
    unpack_scales(block.scales, scales, mins);
    for (int group = 0; group < 8; ++group) {
      const float scale = d * static_cast<float>(scales[group]);
      const float min = dmin * static_cast<float>(mins[group]);
      const uint8_t* qs = block.qs + group / 2 * 32;
      const int shift = group % 2 * 4;
      for (int i = 0; i < 32; ++i) dst[group * 32 + i] = scale * static_cast<float>(qs[i] >> shift & 15) - min;
    }
  }
}

template <>
void dequantize<Format::Q5_K>(const uint8_t* src, float* dst, int64_t num_blocks) {
  const auto* blocks = reinterpret_cast<const BlockQ5_K*>(src);
  for (int64_t b = 0; b < num_blocks; ++b, dst += kSuperBlock) {
    const BlockQ5_K& block = blocks[b];
    const float d = f16_to_f32(block.d), dmin = f16_to_f32(block.dmin);
    uint8_t scales[8], mins[8];
    unpack_scales(block.scales, scales, mins);
    for (int group = 0; group < 8; ++group) {
      const float scale = d * static_cast<float>(scales[group]);
      const float min = dmin * static_cast<float>(mins[group]);
      const uint8_t* qs = block.qs + group / 2 * 32;
      const int shift = group % 2 * 4;
      for (int i = 0; i < 32; ++i) {
        const int q = (qs[i] >> shift & 15) | (block.qh[i] >> group & 1) << 4;
        dst[group * 32 + i] = scale * static_cast<float>(q) - min;
      }
    }
  }
}

template <>
void dequantize<Format::Q6_K>(const uint8_t* src, float* dst, int64_t num_blocks) {
  const auto* blocks = reinterpret_cast<const BlockQ6_K*>(src);
  for (int64_t b = 0; b < num_blocks; ++b, dst += kSuperBlock) {
    const BlockQ6_K& block = blocks[b];
    const float d = f16_to_f32(block.d);
    for (int group = 0; group < 16; ++group) {
      const float scale = d * static_cast<float>(block.scales[group]);
      const int in_half = group % 8 * 16;  // first value of the group among its 128
      const uint8_t* ql = block.ql + group / 8 * 64 + in_half % 64;
      const uint8_t* qh = block.qh + group / 8 * 32 + in_half % 32;
      const int low_shift = in_half / 64 * 4, high_shift = in_half / 32 * 2;
      for (int i = 0; i < 16; ++i) {
        const int q = (ql[i] >> low_shift & 15) | (qh[i] >> high_shift & 3) << 4;
        dst[group * 16 + i] = scale * static_cast<float>(q - 32);
      }
    }
  }
}

}  // namespace pellucid::quant
