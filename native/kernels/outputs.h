// Where the results of a matrix product go.
#pragma once
#include "kernels/kernels.h"
#include "simd/simd.h"

namespace pellucid::PELLUCID_ISA {

// Of outputs that go to `part` instead, [rows from `row` on][outputs from `output` on] with this stride: where output 0 of
// row 0 would lie. Nothing outside the part is written.
inline float* origin_of(float* part, int64_t stride, int64_t row, int64_t output) {
  return reinterpret_cast<float*>(reinterpret_cast<uintptr_t>(part) - 4 * static_cast<uintptr_t>(row * stride + output));
}

// Adds the bias and writes 16 outputs (fewer at the end of the matrix).
inline void write_outputs(f32x16 value, const PackedWeight& w, int64_t row, int64_t first) {
  float* y = w.y + row * w.y_stride + first;
  if (first + 16 <= w.outputs) {
    if (w.bias) value = add(value, load(w.bias + first));
    store(y, value);
    return;
  }
  float lanes[16];
  store(lanes, value);
  for (int64_t i = 0; first + i < w.outputs; ++i) y[i] = w.bias ? lanes[i] + w.bias[first + i] : lanes[i];
}

}  // namespace pellucid::PELLUCID_ISA
