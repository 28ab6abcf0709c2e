// F32, F16, BF16, and the choice of a format's function.
#include <cstring>

#include "quant/blocks.h"

namespace pellucid::quant {

template <>
void dequantize<Format::F32>(const uint8_t* src, float* dst, int64_t num_blocks) {
  std::memcpy(dst, src, static_cast<size_t>(num_blocks) * sizeof(float));
}

template <>
void dequantize<Format::F16>(const uint8_t* src, float* dst, int64_t num_blocks) {
  const auto* in = reinterpret_cast<const BlockF16*>(src);
  for (int64_t i = 0; i < num_blocks; ++i) dst[i] = f16_to_f32(in[i].bits);
}

template <>
void dequantize<Format::BF16>(const uint8_t* src, float* dst, int64_t num_blocks) {
  const auto* in = reinterpret_cast<const BlockBF16*>(src);
  for (int64_t i = 0; i < num_blocks; ++i) dst[i] = bf16_to_f32(in[i].bits);
}

void dequantize_row(Format format, const uint8_t* src, float* dst, int64_t n) {
  switch (format) {
#define PELLUCID_X(name, values) \
  case Format::name: return dequantize<Format::name>(src, dst, n / (values));
    PELLUCID_FORMATS(PELLUCID_X)
#undef PELLUCID_X
  }
}

}  // namespace pellucid::quant
