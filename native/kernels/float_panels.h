// Products with float weights. Each output is two chains of fused multiply-adds, over the even inputs and over the odd
// ones, added at the end: for a single row, too, that is enough to keep the multiply-add units busy.
#pragma once
#include <cstring>
#include <vector>

#include "kernels/formats.h"
#include "kernels/kernels.h"
#include "kernels/outputs.h"
#include "quant/packed.h"
#include "simd/simd.h"

namespace pellucid::PELLUCID_ISA {

template <quant::Format F> struct FloatWeight;
template <> struct FloatWeight<quant::Format::F32> {
  using Type = float;
  static f32x16 get(const float* p) { return load(p); }
};
template <> struct FloatWeight<quant::Format::F16> {
  using Type = uint16_t;
  static f32x16 get(const uint16_t* p) { return load_f16(p); }
};
template <> struct FloatWeight<quant::Format::BF16> {
  using Type = uint16_t;
  static f32x16 get(const uint16_t* p) { return load_bf16(p); }
};

// A panel of 32 outputs, R rows of x, and the bytes of the next panel that are asked for meanwhile: `ahead_step` for
// each input, from `ahead` on (matmul.cc: Ahead).
template <quant::Format F> struct FloatTile {
  const typename FloatWeight<F>::Type* weights;  // [inputs][32]
  const float* x;                                // [R, inputs]
  int64_t inputs;
  const uint8_t* ahead;
  int64_t ahead_step;
};

template <quant::Format F, int R> inline void both_chains(const FloatTile<F>& t, f32x16 (&out)[R][2]) {
  using W = FloatWeight<F>;
  const auto* p = t.weights;
  const int64_t n = t.inputs;
  f32x16 even[R][2], odd[R][2];
  for (int r = 0; r < R; ++r) even[r][0] = even[r][1] = odd[r][0] = odd[r][1] = zero_f();
  int64_t k = 0;
  for (; k + 2 <= n; k += 2, p += 64) {
    if constexpr (R > 1) {
      constexpr int kLines = sizeof(*p) / 2;  // 32 halves are a line of 64 bytes, 32 floats are two
      for (int i = 0; i < 2 * kLines; ++i) __builtin_prefetch(t.ahead + (kLines * k + i) * (t.ahead_step / kLines), 0, 2);
    }
    const f32x16 w0 = W::get(p), w1 = W::get(p + 16), w2 = W::get(p + 32), w3 = W::get(p + 48);
    for (int r = 0; r < R; ++r) {
      const f32x16 x0 = set1(t.x[r * n + k]), x1 = set1(t.x[r * n + k + 1]);
      even[r][0] = fma(w0, x0, even[r][0]);
      even[r][1] = fma(w1, x0, even[r][1]);
      odd[r][0] = fma(w2, x1, odd[r][0]);
      odd[r][1] = fma(w3, x1, odd[r][1]);
    }
  }
  for (int r = 0; r < R; ++r)
    for (int h = 0; h < 2; ++h) {
      if (k < n) even[r][h] = fma(W::get(p + 16 * h), set1(t.x[r * n + k]), even[r][h]);
      out[r][h] = add(even[r][h], odd[r][h]);
    }
}

template <quant::Format F, int R>
void float_tile(const PackedWeight& w, const FloatTile<F>& tile, int64_t panel, int64_t row) {
  f32x16 y[R][2];
  both_chains<F, R>(tile, y);
  for (int r = 0; r < R; ++r)
    for (int h = 0; h < 2; ++h)
      if (32 * panel + 16 * h < w.outputs) write_outputs(y[r][h], w, row + r, 32 * panel + 16 * h);
}

// Panel number `panel`, which lies at `data` in format F, times these rows of x, in tiles of nearly equal size.
template <quant::Format F>
void panel_times_rows(const LinearArgs& a, const PackedWeight& w, int64_t panel, const typename FloatWeight<F>::Type* data, RowRange rows) {
  int64_t tiles = (rows.end - rows.begin + kFloatTileRows - 1) / kFloatTileRows;
  const int64_t step = w.panel_bytes / (tiles * a.inputs);
  const uint8_t* ahead = w.data + (panel + 1) * w.panel_bytes;
  for (int64_t row = rows.begin, count; row < rows.end; row += count, --tiles, ahead += step * a.inputs) {
    count = (rows.end - row + tiles - 1) / tiles;
    const FloatTile<F> tile{data, a.x + row * a.inputs, a.inputs, ahead, step};
    with_number<kFloatTileRows>(count, [&](auto number) { float_tile<F, number>(w, tile, panel, row); });
  }
}

// For many rows a panel of halves is converted once: the converting instructions share a port with the multiply-adds.
constexpr int64_t kRowsToConvert = 4 * kFloatTileRows;

template <quant::Format F> void float_panel(const LinearArgs& a, const PackedWeight& w, int64_t panel, RowRange rows) {
  const auto* data = reinterpret_cast<const typename FloatWeight<F>::Type*>(w.data + panel * w.panel_bytes);
  if constexpr (F != quant::Format::F32) {
    if (rows.end - rows.begin >= kRowsToConvert) {
      thread_local std::vector<float> converted;
      const int64_t values = a.inputs * quant::kFloatRows;
      if (static_cast<int64_t>(converted.size()) < values) converted.resize(static_cast<size_t>(values));
      for (int64_t i = 0; i < values; i += 16) store(converted.data() + i, FloatWeight<F>::get(data + i));
      return panel_times_rows<quant::Format::F32>(a, w, panel, converted.data(), rows);
    }
  }
  panel_times_rows<F>(a, w, panel, data, rows);
}

}  // namespace pellucid::PELLUCID_ISA
