// Activations of rows of values; `map` is for whatever looks at one value at a time.
#pragma once
#include <cmath>

#include "kernels/kernels.h"
#include "kernels/math.h"

namespace pellucid::PELLUCID_ISA {

// Calls f(vector of each input) for all n elements and writes its result; inputs are read before the write.
template <class F> inline void map(const float* x, const float* y, float* out, int64_t n, F f) {
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) store(out + i, f(load(x + i), load(y + i)));
  if (i < n) store_first(out + i, f(load_first(x + i, n - i), load_first(y + i, n - i)), n - i);
}

// activation(gate) * up; up null: the activation alone.
inline void activate(Activation kind, const float* gate, const float* up, float* out, int64_t n) {
  if (kind == Activation::kGelu) {
    for (int64_t i = 0; i < n; ++i) {
      const double x = gate[i];
      const float y = static_cast<float>(0.5 * x * (1.0 + std::erf(x * 0.70710678118654752440)));
      out[i] = up ? y * up[i] : y;
    }
  } else if (kind == Activation::kSilu) {
    if (up) map(gate, up, out, n, [](f32x16 g, f32x16 u) { return mul(silu(g), u); });
    else map(gate, gate, out, n, [](f32x16 g, f32x16) { return silu(g); });
  } else {
    if (up) map(gate, up, out, n, [](f32x16 g, f32x16 u) { return mul(gelu_tanh(g), u); });
    else map(gate, gate, out, n, [](f32x16 g, f32x16) { return gelu_tanh(g); });
  }
}

}  // namespace pellucid::PELLUCID_ISA
