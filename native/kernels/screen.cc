// The screen of a split matrix: for each output an upper bound of its exact value, from half of the bits.
//
// The exact value of a row is z = the float32 chain over blocks b of D_b * fl(d_b s_b), D_b = sum(q x) an exact integer,
// d_b the row's scale, s_b the scale of x. The screen runs the same chain with C_b, in which the lower nibble of every
// input that is not hot counts as 8. Then (Cauchy and Schwarz, block by block)
//   |D_b - C_b| = |sum((nibble - 8) x)| <= radius * |x_b|,   radius: the header's, |x_b|: norm of the inputs not hot
// and both chains are off by at most n 2^-24 (1 + small) sum |D_b d_b s_b|, |D_b| <= 724.1 |all of x_b|: ScreenBlock::norm
// carries that too (native/screen.cc). So z <= c + radius * sum(|d_b| norm_b).
#include "kernels/formats.h"
#include "kernels/kernels.h"
#include "kernels/kernels_here.h"
#include "simd/simd.h"

namespace pellucid::PELLUCID_ISA {
namespace {

struct Bounds {
  f32x16 center, spread;  // sum(C_b d_b s_b); sum(|d_b| norms_b)
};

// One block; hot inputs from term number `term` on add their nibbles. -> the next block's first term.
PELLUCID_INLINE int add_screened_block(const ScreenArgs& a, const uint8_t* header, const uint8_t* planes, f32x16 d, int64_t b,
                                       int term, Bounds& bounds) {
  const ScreenBlock& x = a.blocks[b];
  const int8_t* q = reinterpret_cast<const int8_t*>(a.xq + b * kActivationBytes);
  i32x16 dots = zero_i();
  for_each_group<4>(planes, [&](auto number, u8x64 w) PELLUCID_INLINE_LAMBDA {
    constexpr int g = number;
    dots = dot4(dots, w, q + 4 * g);
  });
  dots = add(shift_left<4>(dots), set1(x.start));
  for (; a.terms[term].block == b; ++term) {
    const int group = a.terms[term].group;
    const u8x64 nibbles = load64(header + 64 + 64 * (group / 2));
    dots = dot4(dots, group % 2 ? high_nibbles(nibbles) : low_nibbles(nibbles), a.terms[term].q);
  }
  bounds.center = fma(to_float(dots), mul(d, set1(x.scale)), bounds.center);
  bounds.spread = fma(abs(d), set1(x.norm), bounds.spread);
  return term;
}

inline Bounds screened_panel(const ScreenArgs& a, const uint8_t* panel) {
  const uint8_t* line = panel + quant::kSplitHeader;
  Bounds bounds = {zero_f(), set1(1e-30f)};  // what underflows is below it
  int term = 0;
  int64_t b = 0;
  for (; b + 2 <= a.num_blocks; b += 2, line += 64 + 2 * quant::kNibbleBytes) {
    term = add_screened_block(a, panel, line + 64, lanes_f16(line, 0), b, term, bounds);
    term = add_screened_block(a, panel, line + 64 + quant::kNibbleBytes, lanes_f16(line, 1), b + 1, term, bounds);
  }
  if (b < a.num_blocks) add_screened_block(a, panel, line + 64, lanes_f16(line, 0), b, term, bounds);
  return bounds;
}

}  // namespace

void screen(const void* arguments, Worker& worker) {
  const auto& a = *static_cast<const ScreenArgs*>(arguments);
  const PackedWeight& w = a.weight;
  const f32x16 infinity = set1(__builtin_inff());
  f32x16 unsound = zero_f();
  float best = -__builtin_inff();
  for (int64_t begin, end; worker.take_share(w.num_panels, a.step, begin, end);)
    for (int64_t p = begin; p < end; ++p) {
      const uint8_t* panel = w.data + p * w.panel_bytes;
      const Bounds bounds = screened_panel(a, panel);
      const f32x16 bias = w.bias ? load(w.bias + 16 * p) : zero_f();
      f32x16 upper = add(bounds.center, mul(load(reinterpret_cast<const float*>(panel)), bounds.spread));
      upper = add(upper, bias);  // monotone: still a bound
      unsound = select_less(upper, infinity, unsound, set1(1.0f));
      const int64_t left = w.outputs - 16 * p;
      if (left < 16) upper = blend((1u << left) - 1, upper, set1(-__builtin_inff()));
      store(a.upper + 16 * p, upper);
      a.panel_upper[p] = reduce_max(upper);
      const float likely = reduce_max(add(bounds.center, bias));
      if (likely > best && left >= 16) {
        best = likely;
        a.likely[worker.index] = static_cast<int32_t>(p);
      }
      // The worker's flag before its items count as done.
      if (reduce_max(unsound) > 0.0f) a.unsound[worker.index] = 1;
    }
}

}  // namespace pellucid::PELLUCID_ISA
