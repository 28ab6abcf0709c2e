// y = x W^T + bias. Output rows lie in the vector lanes, so that each output is one sequential chain over its inputs,
// whatever the number of rows of x: the numeric contract by construction.
//
// Quantised weights: integer dots of 32 inputs (exact), then one fused multiply-add of the block into the chain, in
// ascending order of blocks. Float weights: float_panels.h; bf16 on both sides: bf16_pairs.cc.
#include "kernels/ahead.h"
#include "kernels/float_panels.h"
#include "kernels/formats.h"
#include "kernels/kernels.h"
#include "kernels/kernels_here.h"
#include "kernels/rounding.h"

namespace pellucid::PELLUCID_ISA {
namespace {

using quant::Format;

// Rows [0, count) of a tile of `count` rows.
void quantise_tile(const float* x, int64_t inputs, int count, uint8_t* out) {
  for (int64_t b = 0; b < inputs / 32; ++b, out += count * kActivationBytes)
    for (int r = 0; r < count; ++r) quantise_block(x + r * inputs + 32 * b, out, count, r);
}

// --- one panel of 16 outputs times one tile of R rows -------------------------------------------------------------

template <class F> inline i32x16 dot(i32x16 acc, u8x64 w, const int8_t* x) {
  if constexpr (F::kWide) return dot4_wide(acc, w, x);
  else return dot4(acc, w, x);
}

// The integer dot begins with -offset * sum(q), so that stored values need no subtraction.
template <class F> inline i32x16 dot_start(int32_t neg_sum) {
  if constexpr (F::kShift < 0) return zero_i();
  else return shift_left<F::kShift>(set1(neg_sum));
}

// The scales of one block of 32 inputs, 16 rows each. All are products of a half and an integer below 2^8: exact.
template <Scheme> struct Scales;
template <> struct Scales<Scheme::kScale> { f32x16 d; };
template <> struct Scales<Scheme::kScaleMin> { f32x16 d, m; };  // value = d * q + m
template <> struct Scales<Scheme::kSuper> : Scales<Scheme::kScaleMin> {};
template <> struct Scales<Scheme::kSuper16> { f32x16 d0, d1; };  // one scale for each half
template <> struct Scales<Scheme::kSuper16Min> { f32x16 d0, d1, m0, m1; };  // value = d * q - m

// Of block kHalf (0 or 1) of a pair: `line` is the pair's, `super` the super-block's.
template <Scheme kScheme, int kHalf> PELLUCID_INLINE Scales<kScheme> scales_of(const uint8_t* super, const uint8_t* line) {
  Scales<kScheme> s;
  if constexpr (kScheme == Scheme::kScale) {
    s.d = lanes_f16(line, kHalf);
  } else if constexpr (kScheme == Scheme::kScaleMin) {
    s.d = lanes_f16(line, kHalf);
    s.m = lanes_f16(line, 2 + kHalf);
  } else if constexpr (kScheme == Scheme::kSuper) {
    s.d = mul(lanes_f16(super, 0), lanes_u8(line, kHalf));
    s.m = sub(zero_f(), mul(lanes_f16(super, 1), lanes_u8(line, 2 + kHalf)));
  } else if constexpr (kScheme == Scheme::kSuper16) {
    const f32x16 d = lanes_f16(super, 0);
    s.d0 = mul(d, lanes_i8(line, 2 * kHalf));
    s.d1 = mul(d, lanes_i8(line, 2 * kHalf + 1));
  } else {
    const f32x16 d = lanes_f16(super, 0), dmin = lanes_f16(super, 1);
    s.d0 = mul(d, lanes_u8(line, 2 * kHalf));
    s.d1 = mul(d, lanes_u8(line, 2 * kHalf + 1));
    s.m0 = mul(dmin, lanes_u8(line, 4 + 2 * kHalf));
    s.m1 = mul(dmin, lanes_u8(line, 4 + 2 * kHalf + 1));
  }
  return s;
}

// One block of 16 rows, its planes at `values` (or Halves), times the same block of R rows of x.
template <class F, int R, class Values>
PELLUCID_INLINE void add_block(Values values, const Scales<F::kScheme>& s, const uint8_t* x, f32x16 (&acc)[R]) {
  const int8_t* q = reinterpret_cast<const int8_t*>(x);
  const float* scale = reinterpret_cast<const float*>(x + R * 32);
  const int32_t* neg_sum = reinterpret_cast<const int32_t*>(x + R * 40);
  const int32_t* neg_half = reinterpret_cast<const int32_t*>(x + R * 44);
  if constexpr (F::kScheme == Scheme::kSuper16 || F::kScheme == Scheme::kSuper16Min) {
    i32x16 d0[R], d1[R];
    for (int r = 0; r < R; ++r) {
      d0[r] = dot_start<F>(neg_half[2 * r]);
      d1[r] = dot_start<F>(neg_half[2 * r + 1]);
    }
    for_each_group<F::kBits>(values, [&](auto number, u8x64 w) PELLUCID_INLINE_LAMBDA {
      constexpr int g = number;
      for (int r = 0; r < R; ++r) {
        if constexpr (g < 4) d0[r] = dot<F>(d0[r], w, q + 32 * r + 4 * g);
        else d1[r] = dot<F>(d1[r], w, q + 32 * r + 4 * g);
      }
    });
    for (int r = 0; r < R; ++r) {
      f32x16 sum = fma(to_float(d1[r]), s.d1, mul(to_float(d0[r]), s.d0));
      if constexpr (F::kScheme == Scheme::kSuper16Min) {
        sum = fma(to_float(set1(neg_half[2 * r])), s.m0, sum);
        sum = fma(to_float(set1(neg_half[2 * r + 1])), s.m1, sum);
      }
      acc[r] = fma(sum, set1(scale[r]), acc[r]);
    }
  } else {
    i32x16 dots[R];
    for (int r = 0; r < R; ++r) dots[r] = dot_start<F>(neg_sum[r]);
    for_each_group<F::kBits>(values, [&](auto number, u8x64 w) PELLUCID_INLINE_LAMBDA {
      constexpr int g = number;
      for (int r = 0; r < R; ++r) dots[r] = dot<F>(dots[r], w, q + 32 * r + 4 * g);
    });
    for (int r = 0; r < R; ++r) {
      acc[r] = fma(to_float(dots[r]), mul(s.d, set1(scale[r])), acc[r]);
      if constexpr (F::kScheme != Scheme::kScale) acc[r] = fma(s.m, set1(scale[R + r]), acc[r]);  // scale * sum(q)
    }
  }
}

// Where memory is the limit, the processor's own prefetchers do better alone (measured; bench/README.md): one row of any
// format, and few rows of the widest, whose values need no unpacking.
template <class F> constexpr bool asks_ahead(int rows) { return rows > (F::kBits == 8 ? 4 : 1); }

// Blocks of a panel, read in order, times the same blocks of one tile. The first is the first of a super-block.
template <class F, int R>
PELLUCID_INLINE void panel_times_tile(const uint8_t* p, int64_t blocks, const uint8_t* x, Ahead& ahead, f32x16 (&acc)[R]) {
  constexpr int64_t kBlockOfTile = R * kActivationBytes;
  const uint8_t* super = nullptr;
  int64_t b = 0;
  for (; b + 2 <= blocks; b += 2) {
    if (quant::has_super(F::kScheme) && b % 8 == 0) {
      super = p;
      p += 64;
    }
    const uint8_t* values = p + quant::pair_bytes(F::kScheme);
    if constexpr (asks_ahead<F>(R)) ahead.next_block();
    add_block<F, R>(values, scales_of<F::kScheme, 0>(super, p), x, acc);
    if constexpr (asks_ahead<F>(R)) ahead.next_block();
    add_block<F, R>(values + F::kBytes, scales_of<F::kScheme, 1>(super, p), x + kBlockOfTile, acc);
    x += 2 * kBlockOfTile;
    p = values + 2 * F::kBytes;
  }
  if (b < blocks) add_block<F, R>(p + quant::pair_bytes(F::kScheme), scales_of<F::kScheme, 0>(super, p), x, acc);
}

// The same of a split panel: the lines of scales are in the upper stream, behind the header.
template <int R>
PELLUCID_INLINE void split_panel_times_tile(Halves p, int64_t blocks, const uint8_t* x, Ahead& upper, Ahead& lower, f32x16 (&acc)[R]) {
  using F = Packed<Format::Q8_0>;
  p.upper += quant::kSplitHeader;
  const uint8_t* line = p.upper;
  for (int64_t b = 0; b < blocks; ++b, x += R * kActivationBytes) {
    if (b % 2 == 0) {
      line = p.upper;
      p.upper += 64;
    }
    if constexpr (asks_ahead<F>(R)) {
      upper.next_block();
      lower.next_block();
    }
    add_block<F, R>(p, {lanes_f16(line, b % 2)}, x, acc);
    p.upper += quant::kNibbleBytes;
    p.lower += quant::kNibbleBytes;
  }
}

// Of a panel with many blocks, times many rows, so many are taken at a time: they stay in the first cache for all tiles.
constexpr int64_t kBlocksAtOnce = 16, kTilesAtOnce = 16;
template <class F> constexpr int64_t bytes_of_blocks(int64_t blocks) {
  return blocks * F::kBytes + blocks / 2 * quant::pair_bytes(F::kScheme) + (quant::has_super(F::kScheme) ? blocks / 8 * 64 : 0);
}

// Panel number `panel` times these rows of x, the first of which is the first of a tile.
template <class F>
void quantised_panel(const LinearArgs& a, const PackedWeight& w, int64_t panel, const uint8_t* xq, RowRange rows) {
  const int64_t blocks = a.inputs / 32, begin = rows.begin / kTileRows, tiles = (rows.end + kTileRows - 1) / kTileRows;
  const int64_t step = tiles - begin > 1 && blocks > 2 * kBlocksAtOnce ? kBlocksAtOnce : blocks;
  const uint8_t* const data = w.data + panel * w.panel_bytes;
  Ahead ahead(data + w.panel_bytes, w.panel_bytes, blocks * (tiles - begin));
  f32x16 sums[kTilesAtOnce][kTileRows];
  for (int64_t first_tile = begin; first_tile < tiles; first_tile += kTilesAtOnce)
    for (int64_t block = 0; block < blocks; block += step)
      for (int64_t tile = first_tile; tile < tiles && tile < first_tile + kTilesAtOnce; ++tile)
        with_number<kTileRows>(rows_of_tile(rows.end, tile), [&](auto count) PELLUCID_INLINE_LAMBDA {
          f32x16(&kept)[kTileRows] = sums[tile - first_tile];
          const int64_t row = tile * kTileRows, some = blocks - block < step ? blocks - block : step;
          const uint8_t* x = xq + (row * blocks + count * block) * kActivationBytes;
          f32x16 acc[count];
          for (int r = 0; r < count; ++r) acc[r] = block ? kept[r] : zero_f();
          panel_times_tile<F, count>(data + bytes_of_blocks<F>(block), some, x, ahead, acc);
          if (block + some < blocks)
            for (int r = 0; r < count; ++r) kept[r] = acc[r];
          else
            for (int r = 0; r < count; ++r) write_outputs(acc[r], w, row + r, 16 * panel);
        });
}

Halves halves_of(const PackedWeight& w, int64_t panel, int64_t blocks) {
  return {w.data + panel * w.panel_bytes, w.lower + panel * blocks * quant::kNibbleBytes};
}

void split_panel(const LinearArgs& a, const PackedWeight& w, int64_t panel, const uint8_t* xq, RowRange rows) {
  const int64_t blocks = a.inputs / 32, begin = rows.begin / kTileRows, tiles = (rows.end + kTileRows - 1) / kTileRows;
  const Halves at = halves_of(w, panel, blocks), next = halves_of(w, panel + 1, blocks);
  const int64_t turns = blocks * (tiles - begin);
  Ahead upper(next.upper, next.upper - at.upper, turns), lower(next.lower, next.lower - at.lower, turns);
  for (int64_t tile = begin; tile < tiles; ++tile)
    with_number<kTileRows>(rows_of_tile(rows.end, tile), [&](auto count) PELLUCID_INLINE_LAMBDA {
      const int64_t row = tile * kTileRows;
      f32x16 acc[count];
      for (int r = 0; r < count; ++r) acc[r] = zero_f();
      split_panel_times_tile<count>(at, blocks, xq + row * blocks * kActivationBytes, upper, lower, acc);
      for (int r = 0; r < count; ++r) write_outputs(acc[r], w, row + r, 16 * panel);
    });
}

}  // namespace

void one_panel(const LinearArgs& a, const PackedWeight& w, int64_t panel, const uint8_t* xq, RowRange rows) {
  if (w.lower) return split_panel(a, w, panel, xq, rows);
  if (w.in_pairs) return a.pairs->panel(a, w, panel, xq + a.pairs_at);
  switch (static_cast<Format>(w.format)) {
    case Format::F32: return float_panel<Format::F32>(a, w, panel, rows);
    case Format::F16: return float_panel<Format::F16>(a, w, panel, rows);
    case Format::BF16: return float_panel<Format::BF16>(a, w, panel, rows);
#define PELLUCID_FORMAT(name) \
  case Format::name: return quantised_panel<Packed<Format::name>>(a, w, panel, xq, rows);
      PELLUCID_FORMAT(Q4_0)
      PELLUCID_FORMAT(Q4_1)
      PELLUCID_FORMAT(Q5_0)
      PELLUCID_FORMAT(Q5_1)
      PELLUCID_FORMAT(Q8_0)
      PELLUCID_FORMAT(Q2_K)
      PELLUCID_FORMAT(Q3_K)
      PELLUCID_FORMAT(Q4_K)
      PELLUCID_FORMAT(Q5_K)
      PELLUCID_FORMAT(Q6_K)
#undef PELLUCID_FORMAT
  }
}

void exact_panel(const PackedWeight& w, const uint8_t* xq, int64_t blocks, int64_t panel, float* out) {
  LinearArgs a = {};
  a.rows = 1;
  a.inputs = 32 * blocks;
  PackedWeight one = w;
  one.y = origin_of(out, 16, 0, 16 * panel);
  one_panel(a, one, panel, xq, {0, 1});
}

void quantise(const void* arguments, Worker& worker) {
  const auto& a = *static_cast<const QuantiseArgs*>(arguments);
  const int64_t tiles = (a.rows + kTileRows - 1) / kTileRows, row_bytes = a.inputs / 32 * kActivationBytes;
  for (int64_t begin, end; worker.take_near(tiles, 1, begin, end);)
    quantise_tile(a.x + begin * kTileRows * a.inputs, a.inputs, rows_of_tile(a.rows, begin),
                  a.out + begin * kTileRows * row_bytes);
}

RowRange rows_of_group(const LinearArgs& a, int64_t group) {
  const int64_t tiles = (a.rows + kTileRows - 1) / kTileRows, last = tiles * (group + 1) / a.row_groups * kTileRows;
  return {tiles * group / a.row_groups * kTileRows, last < a.rows ? last : a.rows};
}

void linear(const void* arguments, Worker& worker) {
  const auto& a = *static_cast<const LinearArgs*>(arguments);
  if (a.rows == 0) return;
  const uint8_t* xq = a.xq;
  if (a.own_xq) {
    uint8_t* own = a.own_xq + worker.index * a.own_stride;
    if (a.quantised) quantise_tile(a.x, a.inputs, static_cast<int>(a.rows), own);
    if (a.pairs) a.pairs->round_row(a.x, a.inputs, own + a.pairs_at);
    xq = own;
  }
  int64_t panels = 0;
  for (int i = 0; i < a.num_weights; ++i) panels += a.weight[i].num_panels;
  const auto some_panels = [&](int64_t begin, int64_t end, RowRange rows) {
    int64_t first = 0;  // of the current weight
    for (int i = 0; i < a.num_weights; ++i) {
      const PackedWeight& w = a.weight[i];
      for (int64_t p = begin > first ? begin : first; p < end && p < first + w.num_panels; ++p)
        one_panel(a, w, p - first, xq, rows);
      first += w.num_panels;
    }
  };
  int64_t begin, end;
  if (a.row_groups == 1) {
    while (worker.take_share(panels, a.step, begin, end)) some_panels(begin, end, {0, a.rows});
    return;
  }
  while (worker.take_near(a.row_groups * panels, 1, begin, end))
    some_panels(begin % panels, begin % panels + 1, rows_of_group(a, begin / panels));
}

}  // namespace pellucid::PELLUCID_ISA
