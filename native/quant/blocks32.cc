// The first generation: blocks of 32 values with one float16 scale, and a float16 minimum in the `_1` kinds.
// The order of the float32 operations is the reference's: one multiplication, then one addition.
#include "quant/blocks.h"

namespace pellucid::quant {
namespace {

uint32_t fifth_bits(const uint8_t qh[4]) {
  return static_cast<uint32_t>(qh[0]) | static_cast<uint32_t>(qh[1]) << 8 | static_cast<uint32_t>(qh[2]) << 16 |
         static_cast<uint32_t>(qh[3]) << 24;
}

}  // namespace

template <>
void dequantize<Format::Q4_0>(const uint8_t* src, float* dst, int64_t num_blocks) {
  const auto* blocks = reinterpret_cast<const BlockQ4_0*>(src);
  for (int64_t b = 0; b < num_blocks; ++b, dst += kBlock) {
    const BlockQ4_0& block = blocks[b];
    const float d = f16_to_f32(block.d);
    for (int i = 0; i < kBlock / 2; ++i) {
      dst[i] = d * static_cast<float>((block.qs[i] & 15) - 8);
      dst[i + kBlock / 2] = d * static_cast<float>((block.qs[i] >> 4) - 8);
    }
  }
}

template <>
void dequantize<Format::Q4_1>(const uint8_t* src, float* dst, int64_t num_blocks) {
  const auto* blocks = reinterpret_cast<const BlockQ4_1*>(src);
  for (int64_t b = 0; b < num_blocks; ++b, dst += kBlock) {
    const BlockQ4_1& block = blocks[b];
    const float d = f16_to_f32(block.d), m = f16_to_f32(block.m);
    for (int i = 0; i < kBlock / 2; ++i) {
      dst[i] = d * static_cast<float>(block.qs[i] & 15) + m;
      dst[i + kBlock / 2] = d * static_cast<float>(block.qs[i] >> 4) + m;
    }
  }
}

template <>
void dequantize<Format::Q5_0>(const uint8_t* src, float* dst, int64_t num_blocks) {
  const auto* blocks = reinterpret_cast<const BlockQ5_0*>(src);
  for (int64_t b = 0; b < num_blocks; ++b, dst += kBlock) {
    const BlockQ5_0& block = blocks[b];
    const float d = f16_to_f32(block.d);
    const uint32_t high = fifth_bits(block.qh);
    for (int i = 0; i < kBlock / 2; ++i) {
      const int low_q = (block.qs[i] & 15) | static_cast<int>(high >> i & 1) << 4;
      const int high_q = (block.qs[i] >> 4) | static_cast<int>(high >> (i + 16) & 1) << 4;
      dst[i] = d * static_cast<float>(low_q - 16);
      dst[i + kBlock / 2] = d * static_cast<float>(high_q - 16);
    }
  }
}

template <>
void dequantize<Format::Q5_1>(const uint8_t* src, float* dst, int64_t num_blocks) {
  const auto* blocks = reinterpret_cast<const BlockQ5_1*>(src);
  for (int64_t b = 0; b < num_blocks; ++b, dst += kBlock) {
    const BlockQ5_1& block = blocks[b];
    const float d = f16_to_f32(block.d), m = f16_to_f32(block.m);
    const uint32_t high = fifth_bits(block.qh);
    for (int i = 0; i < kBlock / 2; ++i) {
      const int low_q = (block.qs[i] & 15) | static_cast<int>(high >> i & 1) << 4;
      const int high_q = (block.qs[i] >> 4) | static_cast<int>(high >> (i + 16) & 1) << 4;
      dst[i] = d * static_cast<float>(low_q) + m;
      dst[i + kBlock / 2] = d * static_cast<float>(high_q) + m;
    }
  }
}

template <>
void dequantize<Format::Q8_0>(const uint8_t* src, float* dst, int64_t num_blocks) {
  const auto* blocks = reinterpret_cast<const BlockQ8_0*>(src);
  for (int64_t b = 0; b < num_blocks; ++b, dst += kBlock) {
    const BlockQ8_0& block = blocks[b];
    const float d = f16_to_f32(block.d);
    for (int i = 0; i < kBlock; ++i) dst[i] = d * static_cast<float>(block.qs[i]);
  }
}

}  // namespace pellucid::quant
