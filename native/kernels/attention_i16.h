// The products of attention on int16 (KvFormat::kI16): exact sums of integers, so that neither the queries that share a
// reading nor their order changes a bit, and two products in each 32-bit lane of an instruction, where float32 has one.
//
// A key, a value and a query have one scale each. A weight is first multiplied by its value's scale; the products of 64
// positions then share one scale, so that a position with nearly all the weight (the first one, often) costs at most
// those 63 beside it their last bits.
#pragma once
#include "kernels/attention_run.h"

namespace pellucid::PELLUCID_ISA {

// n values as integers within +-steps, to even; q is filled with zeros up to a whole vector. Returns what one step is: NaN,
// and zeros in q, where a value is not finite.
inline float round_row(const float* x, int64_t n, int32_t steps, int16_t* q) {
  f32x16 top = zero_f(), nothing = zero_f();
  for (int64_t d = 0; d < n; d += 16) {
    const f32x16 v = load_first(x + d, n - d);
    top = max(abs(v), top);
    nothing = fma(v, zero_f(), nothing);  // NaN if a value is not finite
  }
  const bool finite = reduce_add(nothing) == 0.0f;
  const float largest = reduce_max(top), most = static_cast<float>(steps);
  const f32x16 inverse = set1(largest >= kLeastRounded ? most / largest : 0.0f);
  for (int64_t d = 0; d < n; d += 16)
    store_i16(q + d, finite ? to_int(round_even(mul(load_first(x + d, n - d), inverse))) : zero_i());
  return finite ? largest / most : __builtin_nanf("");
}

// scores[i][16 g ..] of N queries and G groups of positions; `steps` and `step` of the first query.
template <int N, int G>
inline void score_i16(const int16_t* steps, const float* step, const uint8_t* const* keys, const uint8_t* const* ahead,
                      int64_t head_dim, float* scores) {
  const int64_t pairs = even(head_dim) / 2, stride = padded(head_dim);
  for (int64_t start = 0; start < pairs; start += kDotDims / 2) {
    const int64_t stop = start + kDotDims / 2 < pairs ? start + kDotDims / 2 : pairs;
    i32x16 dots[N][G];
    for (int i = 0; i < N; ++i)
      for (int g = 0; g < G; ++g) dots[i][g] = zero_i();
    for (int64_t p = start; p < stop; ++p) {
      u8x64 k[G];
      for (int g = 0; g < G; ++g) {
        k[g] = load64(keys[g] + kScalesBytes + 64 * p);
        if (ahead) __builtin_prefetch(ahead[g] + kScalesBytes + 64 * p, 0, 2);
      }
      for (int i = 0; i < N; ++i)
        for (int g = 0; g < G; ++g) dots[i][g] = dot2(dots[i][g], k[g], steps + i * stride + 2 * p);
    }
    for (int i = 0; i < N; ++i)
      for (int g = 0; g < G; ++g) {
        float* s = scores + i * kRun + 16 * g;
        f32x16 sum = to_float(dots[i][g]);
        if (start) sum = add(load(s), sum);
        if (stop == pairs) sum = mul(sum, mul(load(reinterpret_cast<const float*>(keys[g])), set1(step[i])));
        store(s, sum);
      }
  }
}

// The weights of one query for the groups [from, to) of a chunk that begins at position `start`, as int16: zeros where it
// does not see. values: the chunk's groups. Returns what one step is.
inline float round_weights(const float* weights, const uint8_t* const* values, int64_t start, int64_t from, int64_t to,
                           int64_t first, int64_t last, int16_t* rounded) {
  f32x16 products[kChunkGroups], top = zero_f(), sum = zero_f();
  for (int64_t g = from; g < to; ++g) {
    const uint32_t lanes = visible(start + 16 * g, first, last);
    products[g] = zero_f();
    if (!lanes) continue;
    const f32x16 product = mul(load(weights + 16 * g), load(reinterpret_cast<const float*>(values[g])));
    products[g] = lanes == 0xffffu ? product : blend(lanes, product, zero_f());
    top = max(products[g], top);
    sum = add(products[g], sum);
  }
  const float largest = reduce_max(top), total = reduce_add(sum);
  const bool number = total == total;
  const f32x16 inverse = set1(largest >= kLeastRounded ? static_cast<float>(kWeightSteps) / largest : 0.0f);
  for (int64_t g = from; g < to; ++g)
    store_i16(rounded + 16 * g, number ? to_int(round_even(mul(products[g], inverse))) : zero_i());
  return number ? largest / static_cast<float>(kWeightSteps) : __builtin_nanf("");
}

// sums[i][0 .. 16 V) += step * (weights times V) over the groups [from, to) of a chunk, ascending.
template <int N, int V>
inline void gather_i16(const int16_t* weights, const float* step, const uint8_t* const* values, const uint8_t* const* ahead,
                       int64_t from, int64_t to, int64_t head_dim, int64_t d, float* sums, int64_t stride) {
  const int64_t row_bytes = padded(head_dim) * 4, begin = kScalesBytes + d * 4;
  for (int64_t g = from; g < to; ++g) {
    i32x16 dots[N][V];
    for (int i = 0; i < N; ++i)
      for (int v = 0; v < V; ++v) dots[i][v] = zero_i();
    for (int64_t pair = 0; pair < kPositionGroup / 2; ++pair) {
      const uint8_t* row = values[g] + begin + pair * row_bytes;
      if (ahead) prefetch(ahead[g] + begin + pair * row_bytes, 64 * V);
      u8x64 x[V];
      for (int v = 0; v < V; ++v) x[v] = load64(row + 64 * v);
      for (int i = 0; i < N; ++i)
        for (int v = 0; v < V; ++v) dots[i][v] = dot2(dots[i][v], x[v], weights + i * kChunk + 16 * g + 2 * pair);
    }
    for (int i = 0; i < N; ++i)
      for (int v = 0; v < V; ++v) {
        float* sum = sums + i * stride + 16 * v;
        store(sum, fma(to_float(dots[i][v]), set1(step[i]), load(sum)));
      }
  }
}

}  // namespace pellucid::PELLUCID_ISA
