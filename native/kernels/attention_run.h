// One run of 256 positions for the queries of one item: scores, weights, weighted sums of V.
//
// A score is one chain over head_dim (q8_0: over blocks of 32, whose integer dots are exact); a sum of V is one chain
// over the positions that its query sees, ascending. Queries go in blocks of kBlock; which share a block changes no bit.
#pragma once
#include <cstring>

#include "kernels/attention.h"
#include "kernels/math.h"

namespace pellucid::PELLUCID_ISA {

constexpr int kBlock = 6;        // queries whose sums are kept in registers at once
constexpr int kFewQueries = 2 * kBlock;  // up to so many read the cache itself, more a float32 copy of a chunk
constexpr float kLeastRounded = 1e-30f;  // a block of a query below it is rounded to zeros

// Vectors beside one another in registers for N queries.
template <int N> constexpr int wide() {
#if defined(PELLUCID_ISA_avx512)
  return 4;
#else
  return N >= 4 ? 1 : N >= 2 ? 2 : 4;
#endif
}

// The queries of an item, and the run that they attend to.
struct Tile {
  int count;
  int32_t row[kTileQueries], head[kTileQueries];  // head: of all
  int64_t first[kTileQueries], last[kTileQueries];  // the visible positions: first ..= last
  const int32_t* blocks;                            // a block table that holds for all of them in this run
};

template <KvFormat F> inline f32x16 load_value(const uint8_t* p) {
  if constexpr (F == KvFormat::kF32) return load(reinterpret_cast<const float*>(p));
  else if constexpr (F == KvFormat::kF16) return load_f16(reinterpret_cast<const uint16_t*>(p));
  else if constexpr (F == KvFormat::kBf16) return load_bf16(reinterpret_cast<const uint16_t*>(p));
  else return to_float(load_i8_to_i32(reinterpret_cast<const int8_t*>(p)));
}

inline void prefetch(const uint8_t* p, int64_t bytes) {
  for (int64_t i = 0; i < bytes; i += 64) __builtin_prefetch(p + i, 0, 2);
}

// scores[i][16 g ..] of N queries and G groups of positions. ahead[g]: what is read next, or null.
template <KvFormat F, int N, int G>
inline void score(const float* query, const uint8_t* const* keys, const uint8_t* const* ahead, int64_t head_dim,
                  float* scores) {
  constexpr int64_t kStep = 16, kBytes = 16 * value_bytes(F);
  f32x16 acc[N][G];
  for (int i = 0; i < N; ++i)
    for (int g = 0; g < G; ++g) acc[i][g] = zero_f();
  for (int64_t start = 0; start < head_dim; start += kStep) {
    const int64_t stop = start + kStep < head_dim ? start + kStep : head_dim;
    if (ahead)
      for (int g = 0; g < G; ++g) prefetch(ahead[g] + start * kBytes, (stop - start) * kBytes);
    for (int64_t d = start; d < stop; ++d) {
      f32x16 k[G];
      for (int g = 0; g < G; ++g) k[g] = load_value<F>(keys[g] + d * kBytes);
      for (int i = 0; i < N; ++i) {
        const f32x16 q = set1(query[d * N + i]);
        for (int g = 0; g < G; ++g) acc[i][g] = fma(q, k[g], acc[i][g]);
      }
    }
  }
  for (int i = 0; i < N; ++i)
    for (int g = 0; g < G; ++g) store(scores + i * kRun + 16 * g, acc[i][g]);
}

// The same on int8: exact dots of 32, times both scales, added in ascending order.
template <int N, int G>
inline void score_q8(const int8_t* query, const float* query_scale, const int32_t* offset, const uint8_t* const* keys,
                     const uint8_t* const* ahead, int64_t head_dim, float* scores) {
  f32x16 acc[N][G];
  for (int i = 0; i < N; ++i)
    for (int g = 0; g < G; ++g) acc[i][g] = zero_f();
  for (int64_t b = 0; b < q8_blocks(head_dim); ++b, query += N * kQ8Block) {
    if (ahead)
      for (int g = 0; g < G; ++g) prefetch(ahead[g] + b * kQ8GroupBytes, kQ8GroupBytes);
    i32x16 dots[N][G];
    for (int i = 0; i < N; ++i)
      for (int g = 0; g < G; ++g) dots[i][g] = set1(kWideIsSigned ? int32_t{0} : offset[b * N + i]);
    for (int quad = 0; quad < 8; ++quad)
      for (int g = 0; g < G; ++g) {
        const u8x64 w = load64(keys[g] + b * kQ8GroupBytes + 32 + 64 * quad);
        for (int i = 0; i < N; ++i) {
          const int8_t* q = query + (quad * N + i) * 4;
          if constexpr (kWideIsSigned) dots[i][g] = dot4_wide(dots[i][g], flip_high_bits(w), q);
          else dots[i][g] = dot4(dots[i][g], w, q);
        }
      }
    for (int g = 0; g < G; ++g) {
      const f32x16 key_scale = load_f16(reinterpret_cast<const uint16_t*>(keys[g] + b * kQ8GroupBytes));
      for (int i = 0; i < N; ++i)
        acc[i][g] = fma(to_float(dots[i][g]), mul(key_scale, set1(query_scale[b * N + i])), acc[i][g]);
    }
  }
  for (int i = 0; i < N; ++i)
    for (int g = 0; g < G; ++g) store(scores + i * kRun + 16 * g, acc[i][g]);
}

// sums[i][0 .. 16 V) += weight * V over positions [from, to) of a chunk, ascending. `values`: its groups of 16 positions.
template <KvFormat F, int N, int V>
inline void gather(const float* weights, const uint8_t* const* values, const uint8_t* const* ahead, const float* scales,
                   int64_t from, int64_t to, int64_t head_dim, int64_t d, float* sums, int64_t stride) {
  constexpr bool kQ8 = F == KvFormat::kQ8_0;
  constexpr int64_t kSize = kQ8 ? 1 : value_bytes(F);
  const int64_t blocks = q8_blocks(head_dim), row_bytes = kQ8 ? blocks * kQ8Block : padded(head_dim) * kSize;
  const int64_t begin = (kQ8 ? blocks * 32 : 0) + d * kSize;
  f32x16 acc[N][V];
  for (int i = 0; i < N; ++i)
    for (int v = 0; v < V; ++v) acc[i][v] = load(sums + i * stride + 16 * v);
  for (int64_t p = from; p < to;) {
    const int64_t group = p / kPositionGroup, end = (group + 1) * kPositionGroup, stop = to < end ? to : end;
    for (; p < stop; ++p) {
      const int64_t inside = p % kPositionGroup;
      const uint8_t* row = values[group] + begin + inside * row_bytes;
      if (ahead) prefetch(ahead[group] + begin + inside * row_bytes, 16 * V * kSize);
      f32x16 x[V];
      for (int v = 0; v < V; ++v) {
        x[v] = load_value<F>(row + 16 * v * kSize);
        if constexpr (kQ8) x[v] = mul(x[v], set1(scales[(group * blocks + (d + 16 * v) / kQ8Block) * 16 + inside]));
      }
      for (int i = 0; i < N; ++i) {
        const f32x16 w = set1(weights[i * kRun + p]);
        for (int v = 0; v < V; ++v) acc[i][v] = fma(w, x[v], acc[i][v]);
      }
    }
  }
  for (int i = 0; i < N; ++i)
    for (int v = 0; v < V; ++v) store(sums + i * stride + 16 * v, acc[i][v]);
}

// Lanes of the 16 positions from `position` that lie in first ..= last.
inline uint32_t visible(int64_t position, int64_t first, int64_t last) {
  const int64_t lo = first - position, hi = last - position + 1;
  const uint32_t below_hi = hi >= 16 ? 0xffffu : hi <= 0 ? 0u : (1u << hi) - 1u;
  const uint32_t below_lo = lo >= 16 ? 0xffffu : lo <= 0 ? 0u : (1u << lo) - 1u;
  return below_hi & ~below_lo;
}

// Turns one query's scores of positions from, from + 1, ... to (scores[0] is `start`'s, a multiple of 16) into weights,
// in place; gives their maximum and their sum. Lanes of the first and last 16 that are not visible get 0.
inline void soften(float* scores, int64_t start, int64_t from, int64_t to, float& maximum, float& total) {
  const int64_t begin = from / 16 * 16;
  f32x16 top = set1(-__builtin_inff());
  for (int64_t p = begin; p <= to; p += 16) {
    f32x16 s = load(scores + (p - start));
    if (p < from || p + 15 > to) {
      s = blend(visible(p, from, to), s, set1(-__builtin_inff()));
      store(scores + (p - start), s);
    }
    top = max(s, top);
  }
  maximum = reduce_max(top);
  const f32x16 m = set1(maximum);
  f32x16 acc = zero_f();
  for (int64_t p = begin; p <= to; p += 16) {
    f32x16 w = exp2_falling(sub(load(scores + (p - start)), m));
    if (p < from || p + 15 > to) w = blend(visible(p, from, to), w, zero_f());
    store(scores + (p - start), w);
    acc = add(acc, w);
  }
  total = reduce_add(acc);
}

// Calls f.template operator()<N>() for N = n, 1 to kBlock.
template <class F> inline void with_count(int n, F&& f) {
  switch (n) {
    case 1: return f.template operator()<1>();
    case 2: return f.template operator()<2>();
    case 3: return f.template operator()<3>();
    case 4: return f.template operator()<4>();
    case 5: return f.template operator()<5>();
    default: return f.template operator()<6>();
  }
}

}  // namespace pellucid::PELLUCID_ISA
