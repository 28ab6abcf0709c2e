// Norms, rotary positions, activations, residual additions: everything that looks at one row at a time.
#include <cmath>

#include "kernels/activations.h"
#include "kernels/kernels.h"
#include "kernels/kernels_here.h"

namespace pellucid::PELLUCID_ISA {
namespace {

constexpr int64_t kElementsAtATime = 4096;

// Sum of f(x) over n values in 16 lanes, then the fixed tree; f(0) must be 0 for the padding, or n a multiple of 16.
inline float sum_of_squares(const float* x, int64_t n) {
  f32x16 acc = zero_f();
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) {
    const f32x16 v = load(x + i);
    acc = fma(v, v, acc);
  }
  if (i < n) {
    const f32x16 v = load_first(x + i, n - i);
    acc = fma(v, v, acc);
  }
  return reduce_add(acc);
}

inline float sum(const float* x, int64_t n) {
  f32x16 acc = zero_f();
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) acc = add(acc, load(x + i));
  if (i < n) acc = add(acc, load_first(x + i, n - i));
  return reduce_add(acc);
}

// Groups at a time, so that a turn has some thousand elements.
inline int64_t step_of(int64_t width) { return width >= kElementsAtATime ? 1 : kElementsAtATime / width; }

}  // namespace

void rms_norm(const void* arguments, Worker& worker) {
  const auto& a = *static_cast<const NormArgs*>(arguments);
  for (int64_t begin, end; worker.take_near(a.groups, step_of(a.width), begin, end);)
    for (int64_t g = begin; g < end; ++g) {
      const float* x = a.x + g * a.width;
      const float mean = sum_of_squares(x, a.width) / static_cast<float>(a.width);
      const f32x16 scale = set1(1.0f / std::sqrt(mean + a.eps));
      map(x, a.weight, a.out + g * a.width, a.width, [&](f32x16 v, f32x16 w) { return mul(mul(v, scale), w); });
    }
}

void layer_norm(const void* arguments, Worker& worker) {
  const auto& a = *static_cast<const NormArgs*>(arguments);
  for (int64_t begin, end; worker.take_near(a.groups, step_of(a.width), begin, end);)
    for (int64_t g = begin; g < end; ++g) {
      const float* x = a.x + g * a.width;
      float* out = a.out + g * a.width;
      const float n = static_cast<float>(a.width);
      const f32x16 mean = set1(sum(x, a.width) / n);
      map(x, x, out, a.width, [&](f32x16 v, f32x16) { return sub(v, mean); });
      const f32x16 scale = set1(1.0f / std::sqrt(sum_of_squares(out, a.width) / n + a.eps));
      map(out, a.weight, out, a.width, [&](f32x16 v, f32x16 w) { return mul(mul(v, scale), w); });
      map(out, a.bias, out, a.width, [](f32x16 v, f32x16 b) { return add(v, b); });
    }
}

// Plain products and sums, no fma: the same bits however the compiler vectorises them.
void rope(const void* arguments, Worker& worker) {
  const auto& a = *static_cast<const RopeArgs*>(arguments);
  const int64_t half = a.rotary / 2, width = a.heads * a.head_dim;
  for (int64_t begin, end; worker.take_near(a.rows, step_of(width), begin, end);)
    for (int64_t row = begin; row < end; ++row) {
      const float* c = a.cosines + a.positions[row] * half;
      const float* s = a.sines + a.positions[row] * half;
      for (int64_t h = 0; h < a.heads; ++h) {
        const float* __restrict x = a.x + row * width + h * a.head_dim;
        float* __restrict out = a.out + row * width + h * a.head_dim;
        if (a.interleaved) {
          for (int64_t i = 0; i < half; ++i) {
            out[2 * i] = x[2 * i] * c[i] - x[2 * i + 1] * s[i];
            out[2 * i + 1] = x[2 * i + 1] * c[i] + x[2 * i] * s[i];
          }
        } else {
          for (int64_t i = 0; i < half; ++i) {
            out[i] = x[i] * c[i] - x[i + half] * s[i];
            out[i + half] = x[i + half] * c[i] + x[i] * s[i];
          }
        }
        for (int64_t i = a.rotary; i < a.head_dim; ++i) out[i] = x[i];
      }
    }
}

void glu(const void* arguments, Worker& worker) {
  const auto& a = *static_cast<const GluArgs*>(arguments);
  const auto kind = static_cast<Activation>(a.activation);
  for (int64_t begin, end; worker.take_near(a.size, kElementsAtATime / 2, begin, end);)
    activate(kind, a.gate + begin, a.up ? a.up + begin : nullptr, a.out + begin, end - begin);
}

void add(const void* arguments, Worker& worker) {
  const auto& a = *static_cast<const AddArgs*>(arguments);
  const bool repeat = a.period < a.size;
  const int64_t width = repeat ? a.period : a.size, step = repeat ? a.period : kElementsAtATime;
  for (int64_t begin, end; worker.take_near(a.size, step, begin, end);)
    map(a.x + begin, a.y + begin % width, a.out + begin, end - begin, [](f32x16 x, f32x16 y) { return add(x, y); });
}

}  // namespace pellucid::PELLUCID_ISA
