// Causal attention over a paged cache, in runs of 256 absolute positions.
//
// For one query, one run gives (maximum score, sum of weights, weighted sum of V); runs are merged in ascending order.
// What a run gives depends on the query, its window and the cache alone: not on which queries share the reading, nor
// on which thread does it. Masked positions are exact zeros.
#include <cstring>

#include "kernels/kernels.h"
#include "kernels/kernels_here.h"
#include "kernels/math.h"

namespace pellucid::PELLUCID_ISA {
namespace {

constexpr float kMinusInfinity = -__builtin_inff();
constexpr int64_t kMaxHeadDim = 1024;

// V rows and partial results are padded to whole vectors.
inline int64_t padded(int64_t head_dim) { return (head_dim + 15) / 16 * 16; }

template <bool kHalf> struct CacheType;
template <> struct CacheType<true> {
  using Type = uint16_t;
  static f32x16 get(const uint16_t* p) { return load_f16(p); }
  static void put(uint16_t* p, f32x16 x) { store_f16(p, x); }
};
template <> struct CacheType<false> {
  using Type = float;
  static f32x16 get(const float* p) { return load(p); }
  static void put(float* p, f32x16 x) { store(p, x); }
};

// Up to kQueryTile queries of one sequence that share a KV head.
struct Tile {
  int count;
  const float* query[kQueryTile];  // [head_dim]
  float* out[kQueryTile];          // [head_dim]
  int32_t first[kQueryTile];       // the visible positions: first ..= last
  int32_t last[kQueryTile];
  const int32_t* blocks;           // the sequence's block table
};

// Tile t of KV head h: rows tile_rows[t] .. tile_rows[t + 1], all heads of the group.
Tile make_tile(const AttentionArgs& a, int64_t t, int64_t h) {
  Tile tile;
  tile.count = 0;
  const int64_t group = a.heads / a.kv_heads, width = a.heads * a.head_dim;
  // A group larger than kQueryTile is cut into parts: tile_rows then lists one row several times (see bind).
  const int64_t parts = (group + kQueryTile - 1) / kQueryTile;
  const int64_t real = t / parts, part = t % parts;
  const int64_t begin_head = part * kQueryTile, end_head = begin_head + kQueryTile < group ? begin_head + kQueryTile : group;
  for (int32_t row = a.tile_rows[real]; row < a.tile_rows[real + 1]; ++row)
    for (int64_t g = begin_head; g < end_head; ++g) {
      const int64_t at = row * width + (h * group + g) * a.head_dim;
      tile.query[tile.count] = a.q + at;
      tile.out[tile.count] = a.out + at;
      tile.last[tile.count] = a.positions[row];
      const int64_t first = a.window ? a.positions[row] - a.window + 1 : 0;
      tile.first[tile.count] = static_cast<int32_t>(first > 0 ? first : 0);
      ++tile.count;
    }
  tile.blocks = a.block_tables + a.sequence_ids[a.tile_rows[real]] * a.max_blocks;
  return tile;
}

template <bool kHalf> struct Cache {
  using C = CacheType<kHalf>;
  using T = typename C::Type;
  const AttentionArgs& a;
  // K of 16 positions: [head_dim][16]
  const T* keys(const Tile& tile, int64_t h, int64_t position) const {
    const int64_t block = tile.blocks[position / a.block_size], inside = position % a.block_size / 16;
    return static_cast<const T*>(a.k_cache) +
           ((block * a.kv_heads + h) * (a.block_size / 16) + inside) * a.head_dim * 16;
  }
  // V of 16 positions: [16][padded head_dim]
  const T* values(const Tile& tile, int64_t h, int64_t position) const {
    const int64_t block = tile.blocks[position / a.block_size], inside = position % a.block_size;
    return static_cast<const T*>(a.v_cache) + ((block * a.kv_heads + h) * a.block_size + inside) * padded(a.head_dim);
  }
};

// scores[i][0..16 * G) of G groups of 16 positions, for N queries: one chain over head_dim for each score.
template <bool kHalf, int N, int G>
inline void score(const float* const* query, const typename CacheType<kHalf>::Type* const* keys, int64_t head_dim,
                  float scale, float (*scores)[kRun]) {
  f32x16 acc[N][G];
  for (int i = 0; i < N; ++i)
    for (int g = 0; g < G; ++g) acc[i][g] = zero_f();
  for (int64_t d = 0; d < head_dim; ++d) {
    f32x16 k[G];
    for (int g = 0; g < G; ++g) k[g] = CacheType<kHalf>::get(keys[g] + 16 * d);
    for (int i = 0; i < N; ++i) {
      const f32x16 q = set1(query[i][d]);
      for (int g = 0; g < G; ++g) acc[i][g] = fma(q, k[g], acc[i][g]);
    }
  }
  for (int i = 0; i < N; ++i)
    for (int g = 0; g < G; ++g) store(scores[i] + 16 * g, mul(acc[i][g], set1(scale)));
}

// Lanes of the 16 positions from `position` that lie in first ..= last.
inline uint32_t visible(int64_t position, int32_t first, int32_t last) {
  const int64_t lo = first - position, hi = last - position + 1;
  const uint32_t below_hi = hi >= 16 ? 0xffffu : hi <= 0 ? 0u : (1u << hi) - 1u;
  const uint32_t below_lo = lo >= 16 ? 0xffffu : lo <= 0 ? 0u : (1u << lo) - 1u;
  return below_hi & ~below_lo;
}

// Turns one query's scores of positions [begin, end) into weights, in place; gives the maximum and the sum.
inline void soften(float* scores, int64_t begin, int64_t end, int32_t first, int32_t last, float& maximum, float& total) {
  f32x16 top = set1(kMinusInfinity);
  for (int64_t p = begin; p < end; p += 16) {
    const f32x16 s = blend(visible(p, first, last), load(scores + (p - begin)), set1(kMinusInfinity));
    store(scores + (p - begin), s);
    top = max(s, top);
  }
  maximum = reduce_max(top);
  const f32x16 m = set1(maximum);
  f32x16 acc = zero_f();
  for (int64_t p = begin; p < end; p += 16) {
    const f32x16 w = blend(visible(p, first, last), exp(sub(load(scores + (p - begin)), m)), zero_f());
    store(scores + (p - begin), w);
    acc = add(acc, w);
  }
  total = reduce_add(acc);
}

// out[i][0 .. 16 V) += sum over positions of weight * V, one chain over ascending positions. V vectors of head_dim.
template <bool kHalf, int N, int V>
inline void gather(const float (*weights)[kRun], const typename CacheType<kHalf>::Type* const* values, int64_t count,
                   int64_t width, int64_t d, float (*out)[2 + kMaxHeadDim]) {
  f32x16 acc[N][V];
  for (int i = 0; i < N; ++i)
    for (int v = 0; v < V; ++v) acc[i][v] = zero_f();
  for (int64_t p = 0; p < count; ++p) {
    const auto* row = values[p / 16] + (p % 16) * width + d;
    f32x16 x[V];
    for (int v = 0; v < V; ++v) x[v] = CacheType<kHalf>::get(row + 16 * v);
    for (int i = 0; i < N; ++i) {
      const f32x16 w = set1(weights[i][p]);
      for (int v = 0; v < V; ++v) acc[i][v] = fma(w, x[v], acc[i][v]);
    }
  }
  for (int i = 0; i < N; ++i)
    for (int v = 0; v < V; ++v) store(out[i] + 2 + d + 16 * v, acc[i][v]);
}

// What a thread needs for one tile and run.
struct Workspace {
  float scores[kQueryTile][kRun];
  float partial[kQueryTile][2 + kMaxHeadDim];  // maximum, sum, weighted sum of V
  float merged[kQueryTile][kMaxHeadDim];         // weighted sum over the runs so far
};

// Run `run` of tile: partial results in ws.partial. Queries that see nothing of it get a sum of 0.
template <bool kHalf, int N>
void attend_run(const AttentionArgs& a, const Tile& tile, int64_t h, int64_t run, Workspace& ws) {
  const Cache<kHalf> cache{a};
  using T = typename CacheType<kHalf>::Type;
  // Positions that any of the queries sees, in whole groups of 16.
  int64_t begin = tile.first[0], end = tile.last[0];
  for (int i = 1; i < tile.count; ++i) {
    if (tile.first[i] < begin) begin = tile.first[i];
    if (tile.last[i] > end) end = tile.last[i];
  }
  end = end / 16 * 16 + 16;
  begin = begin / 16 * 16;
  if (begin < run * kRun) begin = run * kRun;
  if (end > (run + 1) * kRun) end = (run + 1) * kRun;
  const int64_t groups = begin < end ? (end - begin) / 16 : 0;

  const T* keys[kRun / 16];
  const T* values[kRun / 16];
  for (int64_t g = 0; g < groups; ++g) {
    keys[g] = cache.keys(tile, h, begin + 16 * g);
    values[g] = cache.values(tile, h, begin + 16 * g);
  }
  constexpr int kGroups = N == 1 ? 4 : N <= 4 ? 2 : 1;
  int64_t g = 0;
  for (; g + kGroups <= groups; g += kGroups)
    score<kHalf, N, kGroups>(tile.query, keys + g, a.head_dim, a.scale, reinterpret_cast<float(*)[kRun]>(&ws.scores[0][16 * g]));
  for (; g < groups; ++g)
    score<kHalf, N, 1>(tile.query, keys + g, a.head_dim, a.scale, reinterpret_cast<float(*)[kRun]>(&ws.scores[0][16 * g]));
  int64_t last = 0;  // no query sees a position at or after it
  for (int i = 0; i < N; ++i) {
    soften(ws.scores[i], begin, end, tile.first[i], tile.last[i], ws.partial[i][0], ws.partial[i][1]);
    if (tile.last[i] + 1 > last) last = tile.last[i] + 1;
  }
  const int64_t count = (last < end ? last : end) - begin;
  constexpr int kVectors = N == 1 ? 8 : N <= 4 ? 4 : 2;
  const int64_t width = padded(a.head_dim);
  int64_t d = 0;
  for (; d + 16 * kVectors <= width; d += 16 * kVectors)
    gather<kHalf, N, kVectors>(ws.scores, values, count, width, d, ws.partial);
  for (; d < width; d += 16) gather<kHalf, N, 1>(ws.scores, values, count, width, d, ws.partial);
}

template <bool kHalf> void attend(const AttentionArgs& a, const Tile& tile, int64_t h, int64_t run, Workspace& ws) {
  switch (tile.count) {
    case 1: return attend_run<kHalf, 1>(a, tile, h, run, ws);
    case 2: return attend_run<kHalf, 2>(a, tile, h, run, ws);
    case 3: return attend_run<kHalf, 3>(a, tile, h, run, ws);
    case 4: return attend_run<kHalf, 4>(a, tile, h, run, ws);
    case 5: return attend_run<kHalf, 5>(a, tile, h, run, ws);
    case 6: return attend_run<kHalf, 6>(a, tile, h, run, ws);
    case 7: return attend_run<kHalf, 7>(a, tile, h, run, ws);
    default: return attend_run<kHalf, 8>(a, tile, h, run, ws);
  }
}

// One query's state while its runs are merged; the weighted sum of V is beside it, [width].
struct Merged {
  float maximum, total;
};

inline void merge(Merged& m, float* sum, const float* partial, int64_t width) {
  if (!(partial[1] > 0.0f || partial[1] != partial[1])) return;  // this run shows the query nothing
  if (m.total == 0.0f) {
    m = {partial[0], partial[1]};
    std::memcpy(sum, partial + 2, static_cast<size_t>(width) * 4);
    return;
  }
  const float top = partial[0] > m.maximum ? partial[0] : m.maximum;
  float scales[16] = {m.maximum - top, partial[0] - top};
  f32x16 e = exp(load(scales));
  store(scales, e);
  m = {top, m.total * scales[0] + partial[1] * scales[1]};
  for (int64_t d = 0; d < width; d += 16)
    store(sum + d, fma(load(partial + 2 + d), set1(scales[1]), mul(load(sum + d), set1(scales[0]))));
}

inline void finish(const Merged& m, const float* sum, float* out, int64_t head_dim) {
  const float inverse = 1.0f / m.total;
  for (int64_t d = 0; d < head_dim; ++d) out[d] = sum[d] * inverse;
}

inline void runs_of(const Tile& tile, int64_t& first, int64_t& last) {
  first = tile.first[0] / kRun;
  last = tile.last[0] / kRun;
  for (int i = 1; i < tile.count; ++i) {
    if (tile.first[i] / kRun < first) first = tile.first[i] / kRun;
    if (tile.last[i] / kRun > last) last = tile.last[i] / kRun;
  }
}

// Runs of the longest sequence in the pass.
inline int64_t most_runs(const AttentionArgs& a) {
  int32_t last = 0;
  for (int64_t row = 0; row < a.rows; ++row)
    if (a.positions[row] > last) last = a.positions[row];
  return last / kRun + 1;
}

template <bool kHalf> void write_rows(const AttentionArgs& a, int64_t begin, int64_t end) {
  using C = CacheType<kHalf>;
  using T = typename C::Type;
  for (int64_t row = begin; row < end; ++row) {
    const int64_t block = a.slots[row] / a.block_size, inside = a.slots[row] % a.block_size;
    for (int64_t h = 0; h < a.kv_heads; ++h) {
      const float* k = a.k + (row * a.kv_heads + h) * a.head_dim;
      const float* v = a.v + (row * a.kv_heads + h) * a.head_dim;
      T* keys = static_cast<T*>(a.k_cache) +
                ((block * a.kv_heads + h) * (a.block_size / 16) + inside / 16) * a.head_dim * 16 + inside % 16;
      T* values = static_cast<T*>(a.v_cache) + ((block * a.kv_heads + h) * a.block_size + inside) * padded(a.head_dim);
      for (int64_t d = 0; d < a.head_dim; d += 16) {
        const int64_t n = a.head_dim - d < 16 ? a.head_dim - d : 16;
        float lanes[2][16] = {};
        std::memcpy(lanes[0], k + d, static_cast<size_t>(n) * 4);
        std::memcpy(lanes[1], v + d, static_cast<size_t>(n) * 4);
        T rounded[16];
        C::put(rounded, load(lanes[0]));
        for (int64_t i = 0; i < n; ++i) keys[(d + i) * 16] = rounded[i];
        C::put(values + d, load(lanes[1]));
      }
    }
  }
}

}  // namespace

void attention_write(const void* arguments, Worker& worker) {
  const auto& a = *static_cast<const AttentionArgs*>(arguments);
  for (int64_t begin, end; worker.take(a.rows, 8, begin, end);)
    a.half ? write_rows<true>(a, begin, end) : write_rows<false>(a, begin, end);
}

void attention(const void* arguments, Worker& worker) {
  const auto& a = *static_cast<const AttentionArgs*>(arguments);
  Workspace ws;
  const int64_t num_runs = most_runs(a), parts = a.scratch && num_runs > 1 ? num_runs : 1;
  const int64_t width = padded(a.head_dim), items = a.num_tiles * a.kv_heads * parts;
  for (int64_t item, end; worker.take(items, 1, item, end);) {
    const int64_t pair = item / parts, h = pair % a.kv_heads;
    const Tile tile = make_tile(a, pair / a.kv_heads, h);
    int64_t first, last;
    runs_of(tile, first, last);
    if (parts > 1) {
      const int64_t run = item % parts;
      if (run < first || run > last) continue;  // attention_merge does not read it either
      a.half ? attend<true>(a, tile, h, run, ws) : attend<false>(a, tile, h, run, ws);
      float* partial = a.scratch + item * kQueryTile * (2 + width);
      for (int i = 0; i < tile.count; ++i)
        std::memcpy(partial + i * (2 + width), ws.partial[i], static_cast<size_t>(2 + width) * 4);
      continue;
    }
    Merged merged[kQueryTile] = {};
    for (int64_t run = first; run <= last; ++run) {
      a.half ? attend<true>(a, tile, h, run, ws) : attend<false>(a, tile, h, run, ws);
      for (int i = 0; i < tile.count; ++i) merge(merged[i], ws.merged[i], ws.partial[i], width);
    }
    for (int i = 0; i < tile.count; ++i) finish(merged[i], ws.merged[i], tile.out[i], a.head_dim);
  }
}

void attention_merge(const void* arguments, Worker& worker) {
  const auto& a = *static_cast<const AttentionArgs*>(arguments);
  const int64_t width = padded(a.head_dim), num_runs = most_runs(a);
  if (!a.scratch || num_runs == 1) return;  // `attention` has done it
  float sum[kMaxHeadDim];
  for (int64_t pair, end; worker.take(a.num_tiles * a.kv_heads, 1, pair, end);) {
    const Tile tile = make_tile(a, pair / a.kv_heads, pair % a.kv_heads);
    int64_t first, last;
    runs_of(tile, first, last);
    for (int i = 0; i < tile.count; ++i) {
      Merged merged = {};
      for (int64_t run = first; run <= last; ++run)
        merge(merged, sum, a.scratch + ((pair * num_runs + run) * kQueryTile + i) * (2 + width), width);
      finish(merged, sum, tile.out[i], a.head_dim);
    }
  }
}

}  // namespace pellucid::PELLUCID_ISA
