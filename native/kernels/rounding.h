// Activations rounded to int8, 32 inputs with one scale (QuantiseArgs says how they lie).
#pragma once
#include "kernels/kernels.h"
#include "simd/simd.h"

namespace pellucid::PELLUCID_ISA {

// Blocks whose largest value is below this are zeros: 127 / largest would overflow.
inline constexpr float kLeastOfBlock = 1e-30f;

inline int rows_of_tile(int64_t rows, int64_t tile) {
  const int64_t left = rows - tile * kTileRows;
  return static_cast<int>(left < kTileRows ? left : kTileRows);
}

// Row r of a block of `count` rows: q = round(x * 127 / max|x|), ties to even.
inline void quantise_block(const float* x, uint8_t* block, int count, int r) {
  int8_t* q = reinterpret_cast<int8_t*>(block) + 32 * r;
  float* scale = reinterpret_cast<float*>(block + count * 32) + r;
  int32_t* neg_sum = reinterpret_cast<int32_t*>(block + count * 40) + r;
  int32_t* neg_halves = reinterpret_cast<int32_t*>(block + count * 44) + 2 * r;
  const f32x16 a = load(x), b = load(x + 16);
  const float largest = reduce_max(max(abs(a), abs(b)));
  const f32x16 inverse = set1(largest >= kLeastOfBlock ? 127.0f / largest : 0.0f);
  const f32x16 qa = round_even(mul(a, inverse)), qb = round_even(mul(b, inverse));
  store_i8(q, to_int(qa));
  store_i8(q + 16, to_int(qb));
  const float first = reduce_add(qa), second = reduce_add(qb);  // exact: integers below 2^24
  const bool finite = first == first && second == second;       // infinities times 0 are NaN too
  scale[0] = finite ? largest / 127.0f : __builtin_nanf("");    // makes all outputs of the row NaN
  scale[count] = scale[0] * (first + second);
  neg_halves[0] = finite ? -static_cast<int32_t>(first) : 0;
  neg_halves[1] = finite ? -static_cast<int32_t>(second) : 0;
  *neg_sum = neg_halves[0] + neg_halves[1];
}

}  // namespace pellucid::PELLUCID_ISA
