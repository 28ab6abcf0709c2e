// Causal attention over a paged cache, in runs of 256 absolute positions.
//
// For one query, one run gives (maximum score, sum of weights, weighted sum of V); runs are merged in ascending order.
// What a run gives depends on the query, its window and the cache alone: not on which queries share the reading, nor
// on which thread does it. Positions that a query does not see are not added, not even as zeros (but for i16, whose zeros
// are integers: they change no sum).
// Milakov and Gimelshein 2018 (arXiv 1805.02867); Dao et al. 2022 (arXiv 2205.14135).
#include "kernels/attention_i16.h"
#include "kernels/kernels.h"
#include "kernels/kernels_here.h"

namespace pellucid::PELLUCID_ISA {
namespace {

constexpr float kLog2E = 1.44269504088896341f;

inline int64_t most(int64_t x, int64_t y) { return x > y ? x : y; }
inline int64_t least(int64_t x, int64_t y) { return x < y ? x : y; }
inline int block_size(const Tile& tile, int block) { return static_cast<int>(least(kBlock, tile.count - block * kBlock)); }

// Queries of row-major rows: all heads of a row, then the next row.
Tile make_tile(const AttentionArgs& a, const AttentionItem& item, int64_t kv_head) {
  Tile tile;
  tile.count = 0;
  const int64_t group = a.heads / a.kv_heads;
  int64_t longest = -1;
  for (int32_t r = 0; r < item.num_rows; ++r) {
    const int32_t row = a.item_rows[item.rows_at + r];
    for (int32_t h = 0; h < item.num_heads; ++h, ++tile.count) {
      tile.row[tile.count] = row;
      tile.head[tile.count] = static_cast<int32_t>(kv_head * group + item.head_at + h);
      tile.first[tile.count] = a.first_position(row);
      tile.last[tile.count] = a.positions[row];
    }
    if (a.positions[row] > longest) {
      longest = a.positions[row];
      tile.blocks = a.blocks_of(row);
    }
  }
  return tile;
}

// int8 with one scale for each 32 values, as the weights' activations; a block with NaN or infinity gives NaN.
void round_query(const float* x, int64_t head_dim, int n, int i, float scale, int8_t* rounded, float* scales, int32_t* offset) {
  for (int64_t b = 0; b < q8_blocks(head_dim); ++b) {
    const f32x16 p = load_first(x + 32 * b, head_dim - 32 * b), q = load_first(x + 32 * b + 16, head_dim - 32 * b - 16);
    const float largest = reduce_max(max(abs(p), abs(q)));
    const f32x16 inverse = set1(largest >= kLeastRounded ? 127.0f / largest : 0.0f);
    const f32x16 rp = round_even(mul(p, inverse)), rq = round_even(mul(q, inverse));
    const float sum = reduce_add(rp) + reduce_add(rq);  // exact: integers
    const bool finite = sum == sum;                     // infinities times 0 are NaN too
    int8_t bytes[32];
    store_i8(bytes, to_int(finite ? rp : zero_f()));
    store_i8(bytes + 16, to_int(finite ? rq : zero_f()));
    for (int quad = 0; quad < 8; ++quad) std::memcpy(rounded + ((b * 8 + quad) * n + i) * 4, bytes + 4 * quad, 4);
    scales[b * n + i] = finite ? largest / 127.0f * scale : __builtin_nanf("");
    offset[b * n + i] = finite ? -128 * static_cast<int32_t>(sum) : 0;
  }
}

void pack_queries(const AttentionArgs& a, const Tile& tile, const Workspace& ws) {
  const float scale = a.scale * kLog2E;
  const int64_t blocks = q8_blocks(a.head_dim);
  for (int i = 0; i < tile.count; ++i) {
    const int block = i / kBlock, n = block_size(tile, block), at = block * kBlock;
    const float* q = a.q + (tile.row[i] * a.heads + tile.head[i]) * a.head_dim;
    if (a.format == KvFormat::kQ8_0) {
      round_query(q, a.head_dim, n, i - at, scale, ws.rounded + at * blocks * kQ8Block, ws.rounded_scale + at * blocks,
                  ws.offset + at * blocks);
    } else if (a.format == KvFormat::kI16) {
      ws.step[i] = round_row(q, a.head_dim, kQuerySteps, ws.steps + i * padded(a.head_dim)) * scale;
    } else {
      float* to = ws.query + at * a.head_dim + (i - at);
      for (int64_t d = 0; d < a.head_dim; ++d) to[d * n] = q[d] * scale;
    }
  }
}

// The groups of 16 positions of a chunk in the cache, and those that follow it.
struct Chunk {
  const uint8_t* group[kChunkGroups];
  const uint8_t* ahead[kChunkGroups];
};

// 16-bit floats: many queries read a float32 copy.
template <KvFormat F> constexpr bool kIsShort = F == KvFormat::kF16 || F == KvFormat::kBf16;

template <KvFormat F> struct Reader {
  const AttentionArgs& a;
  const Tile& tile;
  int64_t kv_head, begin, end;  // positions [begin, end) of the run that any query sees, whole groups
  const Workspace& ws;

  const uint8_t* at(const uint8_t* cache, int64_t bytes, int64_t position) const {
    const int64_t block = tile.blocks[position / a.block_size], inside = position % a.block_size / kPositionGroup;
    return cache + block * a.block_stride + (kv_head * (a.block_size / kPositionGroup) + inside) * bytes;
  }
  const uint8_t* key(int64_t position) const { return at(a.k_cache, key_group_bytes(F, a.head_dim), position); }
  const uint8_t* value(int64_t position) const { return at(a.v_cache, value_group_bytes(F, a.head_dim), position); }

  int64_t groups(int64_t start) const { return least(kChunk, end - start) / kPositionGroup; }
  // After the last keys come the first values; after the last values, whatever.
  Chunk keys(int64_t start) const {
    Chunk c;
    for (int64_t g = 0; g < groups(start); ++g) {
      const int64_t p = start + g * kPositionGroup, next = p + kChunk;
      c.group[g] = key(p);
      c.ahead[g] = next < end ? key(next) : value(least(begin + g * kPositionGroup, end - kPositionGroup));
    }
    return c;
  }
  Chunk values(int64_t start) const {
    Chunk c;
    for (int64_t g = 0; g < groups(start); ++g) {
      const int64_t p = start + g * kPositionGroup, next = p + kChunk;
      c.group[g] = value(p);
      c.ahead[g] = value(next < end ? next : p);
    }
    return c;
  }

  // float32 copies, exact: for many queries.
  void convert_keys(Chunk& c, int64_t count) const {
    for (int64_t g = 0; g < count; ++g) {
      float* to = ws.chunk + g * a.head_dim * 16;
      for (int64_t d = 0; d < a.head_dim; ++d) store(to + 16 * d, load_value<F>(c.group[g] + d * 16 * value_bytes(F)));
      c.group[g] = reinterpret_cast<const uint8_t*>(to);
    }
  }
  void convert_values(Chunk& c, int64_t count) const {
    const int64_t width = padded(a.head_dim), blocks = q8_blocks(a.head_dim);
    for (int64_t g = 0; g < count; ++g) {
      float* to = ws.chunk + g * 16 * width;
      for (int64_t p = 0; p < kPositionGroup; ++p)
        for (int64_t d = 0; d < width; d += 16) {
          if constexpr (F == KvFormat::kQ8_0) {
            const f32x16 x = load_value<F>(c.group[g] + blocks * 32 + p * blocks * kQ8Block + d);
            store(to + p * width + d, mul(x, set1(ws.value_scales[(g * blocks + d / kQ8Block) * 16 + p])));
          } else {
            store(to + p * width + d, load_value<F>(c.group[g] + (p * width + d) * value_bytes(F)));
          }
        }
      c.group[g] = reinterpret_cast<const uint8_t*>(to);
    }
  }
  void load_value_scales(const Chunk& c, int64_t count) const {
    const int64_t blocks = q8_blocks(a.head_dim);
    for (int64_t g = 0; g < count; ++g)
      for (int64_t b = 0; b < blocks; ++b)
        store(ws.value_scales + (g * blocks + b) * 16, load_f16(reinterpret_cast<const uint16_t*>(c.group[g] + b * 32)));
  }
};

// Scores of one block of queries over groups [from, to) of a chunk.
template <KvFormat F> void score_block(const AttentionArgs& a, const Tile& tile, const Workspace& ws, int block,
                                       const Chunk& c, int64_t from, int64_t to, bool ahead, float* scores) {
  const int64_t at = block * kBlock, blocks = q8_blocks(a.head_dim);
  with_count(block_size(tile, block), [&]<int N>() {
    auto some = [&]<int G>(int64_t g) {
      const uint8_t* const* next = ahead ? c.ahead + g : nullptr;
      float* out = scores + at * kRun + g * 16;
      if constexpr (F == KvFormat::kQ8_0)
        score_q8<N, G>(ws.rounded + at * blocks * kQ8Block, ws.rounded_scale + at * blocks, ws.offset + at * blocks,
                       c.group + g, next, a.head_dim, out);
      else if constexpr (F == KvFormat::kI16)
        score_i16<N, G>(ws.steps + at * padded(a.head_dim), ws.step + at, c.group + g, next, a.head_dim, out);
      else score<F, N, G>(ws.query + at * a.head_dim, c.group + g, next, a.head_dim, out);
    };
    constexpr int kWide = F == KvFormat::kQ8_0 ? (wide<N>() + 1) / 2 : wide<N>();
    int64_t g = from;
    for (; g + kWide <= to; g += kWide) some.template operator()<kWide>(g);
    for (; g < to; ++g) some.template operator()<1>(g);
  });
}

// Adds positions [from, to) of a chunk to the sums of queries i .. i + n.
template <KvFormat F> void gather_queries(const AttentionArgs& a, const Workspace& ws, int i, int n, const Chunk& c,
                                          int64_t from, int64_t to, bool ahead, const float* weights) {
  if (from >= to) return;
  const int64_t width = padded(a.head_dim), stride = a.partial_floats();
  with_count(n, [&]<int N>() {
    float* sums = ws.partials + i * stride + 2;
    const uint8_t* const* next = ahead ? c.ahead : nullptr;
    constexpr int kWide = wide<N>();
    int64_t d = 0;
    for (; d + 16 * kWide <= width; d += 16 * kWide)
      gather<F, N, kWide>(weights + i * kRun, c.group, next, ws.value_scales, from, to, a.head_dim, d, sums + d, stride);
    for (; d < width; d += 16)
      gather<F, N, 1>(weights + i * kRun, c.group, next, ws.value_scales, from, to, a.head_dim, d, sums + d, stride);
  });
}

// One block of queries over a chunk: together where all of them see, one by one at the edges.
template <KvFormat F> void gather_block(const AttentionArgs& a, const Tile& tile, const Workspace& ws, int block,
                                        const Chunk& c, int64_t start, int64_t stop, bool ahead, const float* weights) {
  const int n = block_size(tile, block), at = block * kBlock;
  int64_t from[kBlock], to[kBlock], lo = start, hi = stop;
  for (int i = 0; i < n; ++i) {
    from[i] = most(tile.first[at + i], start);
    to[i] = most(least(tile.last[at + i] + 1, stop), from[i]);
    lo = most(lo, from[i]);
    hi = least(hi, to[i]);
  }
  if (lo >= hi) lo = hi = stop;  // nothing is seen by all
  for (int i = 0; i < n; ++i)
    if (from[i] < lo) gather_queries<F>(a, ws, at + i, 1, c, from[i] - start, least(to[i], lo) - start, false, weights);
  gather_queries<F>(a, ws, at, n, c, lo - start, hi - start, ahead, weights);
  for (int i = 0; i < n; ++i)
    if (to[i] > hi) gather_queries<F>(a, ws, at + i, 1, c, most(from[i], hi) - start, to[i] - start, false, weights);
}

// The same on int16: a query's weights are zero where it does not see, and zeros change no sum.
void gather_block_i16(const AttentionArgs& a, const Tile& tile, const Workspace& ws, int block, const Chunk& c,
                      int64_t start, int64_t from, int64_t to, bool ahead, const float* weights) {
  const int n = block_size(tile, block), at = block * kBlock;
  if (from >= to) return;
  for (int i = at; i < at + n; ++i)
    ws.weight_step[i] = round_weights(weights + i * kRun, c.group, start, from, to, tile.first[i], tile.last[i],
                                      ws.weights + i * kChunk);
  const int64_t width = padded(a.head_dim), stride = a.partial_floats();
  with_count(n, [&]<int N>() {
    float* sums = ws.partials + at * stride + 2;
    const auto some = [&]<int V>(int64_t d) {
      gather_i16<N, V>(ws.weights + at * kChunk, ws.weight_step + at, c.group, ahead ? c.ahead : nullptr, from, to,
                       a.head_dim, d, sums + d, stride);
    };
    constexpr int kWide = wide<N>();
    int64_t d = 0;
    for (; d + 16 * kWide <= width; d += 16 * kWide) some.template operator()<kWide>(d);
    for (; d < width; d += 16) some.template operator()<1>(d);
  });
}

// Run `run` for all queries: their partial results in ws.partials. Queries that see nothing of it get a sum of 0.
template <KvFormat F> void attend_run(const AttentionArgs& a, const Tile& tile, int64_t kv_head, int64_t run, const Workspace& ws) {
  const int64_t run_begin = run * kRun, run_end = run_begin + kRun, stride = a.partial_floats();
  const int blocks = (tile.count + kBlock - 1) / kBlock;
  const bool many = tile.count > kFewQueries;
  int64_t first = run_end, last = run_begin - 1;
  for (int i = 0; i < tile.count; ++i) {
    first = least(first, tile.first[i]);
    last = most(last, tile.last[i]);
  }
  // Weights that are rounded together begin at a multiple of kChunk, whoever shares the reading.
  constexpr int64_t kAligned = F == KvFormat::kI16 ? kChunk : kPositionGroup;
  const int64_t begin = most(first, run_begin) / kAligned * kAligned, end = least(last / 16 * 16 + 16, run_end);
  const Reader<F> reader{a, tile, kv_head, begin, end, ws};
  // Positions of a chunk, in groups, that a block of queries sees.
  auto seen = [&](int block, int64_t start, int64_t count, int64_t& from, int64_t& to) {
    int64_t low = tile.first[block * kBlock], high = tile.last[block * kBlock];
    for (int i = 1; i < block_size(tile, block); ++i) {
      low = least(low, tile.first[block * kBlock + i]);
      high = most(high, tile.last[block * kBlock + i]);
    }
    from = most(low - start, 0) / 16;
    to = high < start ? 0 : least((high - start) / 16 + 1, count);
  };
  for (int64_t start = begin; start < end; start += kChunk) {
    const int64_t count = reader.groups(start);
    Chunk c = reader.keys(start);
    if constexpr (kIsShort<F>)
      if (many) reader.convert_keys(c, count);
    for (int block = 0; block < blocks; ++block) {
      int64_t from, to;
      seen(block, start, count, from, to);
      float* scores = ws.scores + (start - run_begin);
      if (many && kIsShort<F>) score_block<KvFormat::kF32>(a, tile, ws, block, c, from, to, false, scores);
      else score_block<F>(a, tile, ws, block, c, from, to, !many && block == 0, scores);
    }
  }
  for (int i = 0; i < tile.count; ++i) {
    float* partial = ws.partials + i * stride;
    std::memset(partial, 0, static_cast<size_t>(stride) * 4);
    const int64_t from = most(tile.first[i], run_begin), to = least(tile.last[i], run_end - 1);
    if (from <= to) soften(ws.scores + i * kRun, run_begin, from, to, partial[0], partial[1]);
  }
  for (int64_t start = begin; start < end; start += kChunk) {
    const int64_t count = reader.groups(start), stop = start + count * 16;
    Chunk c = reader.values(start);
    const float* weights = ws.scores + (start - run_begin);
    if constexpr (F == KvFormat::kI16) {
      for (int block = 0; block < blocks; ++block) {
        int64_t from, to;
        seen(block, start, count, from, to);
        gather_block_i16(a, tile, ws, block, c, start, from, to, !many && block == 0, weights);
      }
    } else {
      if (F == KvFormat::kQ8_0) reader.load_value_scales(c, count);
      if (F != KvFormat::kF32 && many) reader.convert_values(c, count);
      for (int block = 0; block < blocks; ++block)
        if (many) gather_block<KvFormat::kF32>(a, tile, ws, block, c, start, stop, false, weights);
        else gather_block<F>(a, tile, ws, block, c, start, stop, block == 0, weights);
    }
  }
}

void attend(const AttentionArgs& a, const Tile& tile, int64_t kv_head, int64_t run, const Workspace& ws) {
  switch (a.format) {
    case KvFormat::kF32: return attend_run<KvFormat::kF32>(a, tile, kv_head, run, ws);
    case KvFormat::kF16: return attend_run<KvFormat::kF16>(a, tile, kv_head, run, ws);
    case KvFormat::kBf16: return attend_run<KvFormat::kBf16>(a, tile, kv_head, run, ws);
    case KvFormat::kQ8_0: return attend_run<KvFormat::kQ8_0>(a, tile, kv_head, run, ws);
    case KvFormat::kI16: return attend_run<KvFormat::kI16>(a, tile, kv_head, run, ws);
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
  store(scales, exp2_falling(load(scales)));
  m = {top, m.total * scales[0] + partial[1] * scales[1]};
  for (int64_t d = 0; d < width; d += 16)
    store(sum + d, fma(load(partial + 2 + d), set1(scales[1]), mul(load(sum + d), set1(scales[0]))));
}

inline void finish(float total, const float* sum, float* out, int64_t head_dim) {
  const float inverse = 1.0f / total;
  for (int64_t d = 0; d < head_dim; ++d) out[d] = sum[d] * inverse;
}

// One item and KV head: the partials of its one run are kept for `attention_merge`, or all its runs merged here.
void attend_item(const AttentionArgs& a, const AttentionItem& item, int64_t kv_head, const Workspace& ws) {
  const Tile tile = make_tile(a, item, kv_head);
  const int64_t width = padded(a.head_dim), stride = a.partial_floats();
  pack_queries(a, tile, ws);
  Merged merged[kTileQueries] = {};
  for (int64_t run = item.first_run; run < item.end_run; ++run) {
    attend(a, tile, kv_head, run, ws);
    for (int i = 0; i < tile.count; ++i) {
      const float* partial = ws.partials + i * stride;
      const int64_t row = tile.row[i];
      if (item.whole || a.partial_at[row] < 0) {
        merge(merged[i], ws.merged + i * width, partial, width);
      } else if (run >= a.first_run(row) && run <= a.last_run(row)) {
        const int64_t at = (a.partial_at[row] + run - a.first_run(row)) * a.heads + tile.head[i];
        std::memcpy(a.partials + at * stride, partial, static_cast<size_t>(stride) * 4);
      }
    }
  }
  // A row without partials sees one run: the items of the others, done at the same time, leave its `out` alone.
  for (int i = 0; i < tile.count; ++i)
    if (item.whole || (a.partial_at[tile.row[i]] < 0 && a.first_run(tile.row[i]) == item.first_run))
      finish(merged[i].total, ws.merged + i * width, a.out + (tile.row[i] * a.heads + tile.head[i]) * a.head_dim, a.head_dim);
}

}  // namespace

void attention(const void* arguments, Worker& worker) {
  const auto& a = *static_cast<const AttentionArgs*>(arguments);
  Workspace ws;
  Workspace::lay_out(a.head_dim, a.workspaces + worker.index * a.workspace_bytes, &ws);
  for (int64_t i, end; worker.take_near(a.counts[0] * a.kv_heads, 1, i, end);)
    attend_item(a, a.items[i / a.kv_heads], i % a.kv_heads, ws);
}

void attention_merge(const void* arguments, Worker& worker) {
  const auto& a = *static_cast<const AttentionArgs*>(arguments);
  const int64_t width = padded(a.head_dim), stride = a.partial_floats();
  float sum[kMaxHeadDim];
  for (int64_t i, end; worker.take(a.counts[1] * a.heads, 1, i, end);) {
    const int64_t row = a.merge_rows[i / a.heads], head = i % a.heads;
    Merged merged = {};
    for (int64_t run = 0; run <= a.last_run(row) - a.first_run(row); ++run)
      merge(merged, sum, a.partials + ((a.partial_at[row] + run) * a.heads + head) * stride, width);
    finish(merged.total, sum, a.out + (row * a.heads + head) * a.head_dim, a.head_dim);
  }
}

}  // namespace pellucid::PELLUCID_ISA
