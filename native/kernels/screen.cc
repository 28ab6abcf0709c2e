// The screen of a split matrix: for each output of each row an upper bound of its exact value, from half of the bits.
//
// The exact value of a row is z = the float32 chain over blocks b of D_b * fl(d_b s_b), D_b = sum(q x) an exact integer,
// d_b the row's scale, s_b the scale of x. The screen runs the same chain with C_b, in which the lower nibble of every
// input that is not hot counts as 8. Then (Cauchy and Schwarz, block by block)
//   |D_b - C_b| = |sum((nibble - 8) x)| <= radius * |x_b|,   radius: the header's, |x_b|: norm of the inputs not hot
// and both chains are off by at most n 2^-24 (1 + small) sum |D_b d_b s_b|, |D_b| <= 724.1 |all of x_b|: ScreenBlock::norm
// carries that too (native/screen.cc). So z <= c + radius * sum(|d_b| norm_b).
#include <algorithm>

#include "kernels/ahead.h"
#include "kernels/formats.h"
#include "kernels/kernels.h"
#include "kernels/kernels_here.h"
#include "simd/simd.h"

namespace pellucid::PELLUCID_ISA {
namespace {

template <int R> struct Bounds {
  f32x16 center[R], spread[R];  // sum(C_b d_b s_b); sum(|d_b| norms_b)
};

// One block of rows [row, row + R) of x; hot inputs from `term` on add their nibbles. -> the next block's first term.
template <int R>
PELLUCID_INLINE const ScreenTerm* add_screened_block(const ScreenArgs& a, int64_t row, const uint8_t* header, const uint8_t* planes,
                                                     f32x16 d, int64_t b, const ScreenTerm* term, Bounds<R>& bounds) {
  const ScreenBlock* x = a.blocks + b * a.rows + row;
  i32x16 dots[R];
  for (int r = 0; r < R; ++r) dots[r] = zero_i();
  for_each_group<4>(planes, [&](auto number, u8x64 w) PELLUCID_INLINE_LAMBDA {
    constexpr int g = number;
    for (int r = 0; r < R; ++r) dots[r] = dot4(dots[r], w, x[r].q + 4 * g);
  });
  for (int r = 0; r < R; ++r) dots[r] = add(shift_left<4>(dots[r]), set1(x[r].start));
  for (; term->block == b; ++term) {
    const u8x64 pair = load64(header + 64 + 64 * (term->group / 2));
    const u8x64 nibbles = term->group % 2 ? high_nibbles(pair) : low_nibbles(pair);
    for (int r = 0; r < R; ++r) dots[r] = dot4(dots[r], nibbles, term->q[row + r]);
  }
  for (int r = 0; r < R; ++r) {
    bounds.center[r] = fma(to_float(dots[r]), mul(d, set1(x[r].scale)), bounds.center[r]);
    bounds.spread[r] = fma(abs(d), set1(x[r].norm), bounds.spread[r]);
  }
  return term;
}

template <int R> PELLUCID_INLINE Bounds<R> screened_panel(const ScreenArgs& a, int64_t row, const uint8_t* panel, Ahead& ahead) {
  const uint8_t* line = panel + quant::kSplitHeader;
  const uint8_t* planes = line;
  Bounds<R> bounds;
  for (int r = 0; r < R; ++r) {
    bounds.center[r] = zero_f();
    bounds.spread[r] = set1(1e-30f);  // what underflows is below it
  }
  const ScreenTerm* term = a.terms;
  for (int64_t b = 0; b < a.num_blocks; ++b, planes += quant::kNibbleBytes) {
    if (b % 2 == 0) {
      line = planes;
      planes += 64;
    }
    if constexpr (R > 1) ahead.next_block();
    term = add_screened_block<R>(a, row, panel, planes, lanes_f16(line, b % 2), b, term, bounds);
  }
  return bounds;
}

}  // namespace

void screen(const void* arguments, Worker& worker) {
  const auto& a = *static_cast<const ScreenArgs*>(arguments);
  const PackedWeight& w = a.weight;
  const int64_t tiles = (a.rows + kTileRows - 1) / kTileRows;
  const f32x16 infinity = set1(__builtin_inff());
  float best[kMaxScreenRows];
  for (float& each : best) each = -__builtin_inff();
  for (int64_t begin, end; worker.take_share(w.num_panels, a.step, begin, end);)
    for (int64_t p = begin; p < end; ++p) {
      const uint8_t* panel = w.data + p * w.panel_bytes;
      const f32x16 radius = load(reinterpret_cast<const float*>(panel)), bias = w.bias ? load(w.bias + 16 * p) : zero_f();
      const int64_t left = w.outputs - 16 * p;
      f32x16 unsound = zero_f();
      Ahead ahead(panel + w.panel_bytes, w.panel_bytes, a.num_blocks * tiles);
      for (int64_t tile = 0; tile < tiles; ++tile)
        with_number<kTileRows>(std::min<int64_t>(a.rows - tile * kTileRows, kTileRows), [&](auto rows) {
          const int64_t first = tile * kTileRows;
          const Bounds bounds = screened_panel<rows>(a, first, panel, ahead);
          for (int r = 0; r < rows; ++r) {
            const int64_t row = first + r;
            f32x16 upper = add(bounds.center[r], mul(radius, bounds.spread[r]));
            upper = add(upper, bias);  // monotone: still a bound
            unsound = select_less(upper, infinity, unsound, set1(1.0f));
            if (left < 16) upper = blend((1u << left) - 1, upper, set1(-__builtin_inff()));
            store(a.upper + 16 * (row * w.num_panels + p), upper);
            a.panel_upper[row * w.num_panels + p] = reduce_max(upper);
            const float likely = reduce_max(add(bounds.center[r], bias));
            if (likely > best[row] && left >= 16) {
              best[row] = likely;
              a.likely[row * a.num_threads + worker.index] = static_cast<int32_t>(p);
            }
          }
        });
      // The worker's flag before its items count as done.
      if (reduce_max(unsound) > 0.0f) a.unsound[worker.index] = 1;
    }
}

}  // namespace pellucid::PELLUCID_ISA
