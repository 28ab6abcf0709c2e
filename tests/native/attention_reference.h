// Attention in double, straight from the definition, on q, K and V as a KV format rounds them; and how far that may lie
// from attention on what was not rounded.
#pragma once
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <vector>

#include "kernels/attention.h"
#include "quant/half.h"

namespace pellucid {

struct AttentionCase {
  int64_t heads, kv_heads, head_dim, window, positions, block_size;
  KvFormat format;
};

// A vector and, for each value, how far at most it was moved. weighed: of an output, by how much the rounding of the
// weights themselves may move it (i16).
struct Rounded {
  std::vector<double> values, moved, weighed = {};
};

// The nearest float16, ties to even, from its definition: 11 significant bits, exponents from -14 on.
inline float to_half(float x) {
  if (x == 0.0f || !std::isfinite(x)) return x;
  int exponent;
  std::frexp(x, &exponent);
  const double quantum = std::ldexp(1.0, std::max(exponent - 1, -14) - 10);
  const double rounded = std::nearbyint(x / quantum) * quantum;
  return static_cast<float>(std::fabs(rounded) > 65504.0 ? std::copysign(HUGE_VAL, x) : rounded);
}

// Rows of `width` values in blocks of 32 from a row's start, as int8 times a scale: largest / 127, for K and V rounded to
// float16. Half a step at most; a float16 below largest / 127 clips the largest at 127 steps, which moves it by
// 127 * 2^-11 = 0.06 steps: less. The last bits of the float32 arithmetic are within the 1e-4 of a step on top.
inline Rounded round_q8(const std::vector<float>& x, int64_t width, bool half_scale) {
  Rounded r{std::vector<double>(x.size()), std::vector<double>(x.size())};
  for (size_t row = 0; row < x.size(); row += static_cast<size_t>(width))
    for (int64_t b = 0; b < width; b += kQ8Block) {
      const size_t begin = row + static_cast<size_t>(b), end = row + static_cast<size_t>(std::min(b + kQ8Block, width));
      float largest = 0;
      for (size_t i = begin; i < end; ++i) largest = std::max(largest, std::fabs(x[i]));
      float step = largest / 127.0f;
      if (half_scale) step = to_half(step);
      const float inverse = half_scale ? 1.0f / step : 127.0f / largest;
      for (size_t i = begin; i < end; ++i) {
        const float steps = std::clamp(std::nearbyint(x[i] * inverse), -127.0f, 127.0f);
        r.values[i] = static_cast<double>(steps) * static_cast<double>(step);
        r.moved[i] = 0.5001 * static_cast<double>(step);
      }
    }
  return r;
}

// Rows of `width` values within +-steps times one scale: half a step at most.
inline Rounded round_steps(const std::vector<float>& x, int64_t width, int32_t steps) {
  Rounded r{std::vector<double>(x.size()), std::vector<double>(x.size())};
  for (size_t row = 0; row < x.size(); row += static_cast<size_t>(width)) {
    const size_t end = row + static_cast<size_t>(width);
    float largest = 0;
    for (size_t i = row; i < end; ++i) largest = std::max(largest, std::fabs(x[i]));
    const float step = largest / static_cast<float>(steps), inverse = static_cast<float>(steps) / largest;
    for (size_t i = row; i < end; ++i) {
      r.values[i] = static_cast<double>(std::nearbyint(x[i] * inverse)) * static_cast<double>(step);
      r.moved[i] = 0.502 * static_cast<double>(step);  // and the last bits of float32 beside 8191 steps
    }
  }
  return r;
}

// bits: of the significand, with the one that is not stored. Test values are far from subnormal.
inline Rounded round_float(const std::vector<float>& x, KvFormat format) {
  Rounded r{std::vector<double>(x.size()), std::vector<double>(x.size())};
  for (size_t i = 0; i < x.size(); ++i) {
    const float value = format == KvFormat::kF16   ? to_half(x[i])
                        : format == KvFormat::kBf16 ? quant::bf16_to_f32(quant::f32_to_bf16(x[i]))
                                                    : x[i];
    const double half_step = format == KvFormat::kF16 ? 0x1p-11 : format == KvFormat::kBf16 ? 0x1p-8 : 0.0;
    r.values[i] = static_cast<double>(value);
    r.moved[i] = std::max(half_step * std::fabs(static_cast<double>(x[i])), format == KvFormat::kF16 ? 0x1p-25 : 0.0);
  }
  return r;
}

struct AttentionInputs {
  Rounded q, k, v;
};

inline AttentionInputs round_inputs(const AttentionCase& c, const std::vector<float>& q, const std::vector<float>& k,
                                    const std::vector<float>& v) {
  if (c.format == KvFormat::kI16)
    return {round_steps(q, c.head_dim, kQuerySteps), round_steps(k, c.head_dim, kKvSteps), round_steps(v, c.head_dim, kKvSteps)};
  if (c.format == KvFormat::kQ8_0) return {round_q8(q, c.head_dim, false), round_q8(k, c.head_dim, true), round_q8(v, c.head_dim, true)};
  return {round_float(q, KvFormat::kF32), round_float(k, c.format), round_float(v, c.format)};
}

// Output [positions, heads, head_dim] and, beside it, how far rounding may move it at most.
//
// A score moves by at most e_j = scale * sum_d (|dq| (|k| + |dk|) + |q| |dk|), so weights p_j exp(+-e_j); with o the
// exact output, o' - o = sum p_j (exp(x_j) - 1) (v_j - o) / sum p_j exp(x_j) for some |x_j| <= e_j, and V adds no more than
// its own greatest move.
inline Rounded attend_in_double(const AttentionCase& c, const AttentionInputs& in, double scale) {
  Rounded out{std::vector<double>(static_cast<size_t>(c.positions * c.heads * c.head_dim)), {}};
  out.moved.resize(out.values.size());
  out.weighed.resize(out.values.size());
  const int64_t group = c.heads / c.kv_heads, dims = c.head_dim;
  for (int64_t p = 0; p < c.positions; ++p)
    for (int64_t h = 0; h < c.heads; ++h) {
      const int64_t first = c.window && p - c.window + 1 > 0 ? p - c.window + 1 : 0;
      const auto at = [&](int64_t j) { return static_cast<size_t>((j * c.kv_heads + h / group) * dims); };
      const size_t begin = static_cast<size_t>((p * c.heads + h) * dims);
      const double *q = &in.q.values[begin], *dq = &in.q.moved[begin];
      std::vector<double> weight, move;
      double top = -1e300, total = 0, least = 0;
      for (int64_t j = first; j <= p; ++j) {
        const double *k = &in.k.values[at(j)], *dk = &in.k.moved[at(j)];
        double dot = 0, moved = 0;
        for (int64_t d = 0; d < dims; ++d) {
          dot += q[d] * k[d];
          moved += dq[d] * (std::fabs(k[d]) + dk[d]) + std::fabs(q[d]) * dk[d];
        }
        weight.push_back(dot * scale);
        move.push_back(moved * scale);
        top = std::max(top, weight.back());
      }
      for (size_t j = 0; j < weight.size(); ++j) {
        weight[j] = std::exp(weight[j] - top);
        total += weight[j];
        least += weight[j] * std::exp(-move[j]);
      }
      for (double& w : weight) w /= total;
      for (double& m : move) m = std::expm1(m) * total / least;
      double* o = &out.values[begin];
      for (int64_t j = first; j <= p; ++j)
        for (int64_t d = 0; d < dims; ++d)
          o[d] += weight[static_cast<size_t>(j - first)] * in.v.values[at(j) + static_cast<size_t>(d)];
      double* bound = &out.moved[begin];
      for (int64_t d = 0; d < dims; ++d) {
        double greatest = 0;
        for (int64_t j = first; j <= p; ++j) {
          const size_t i = static_cast<size_t>(j - first), v = at(j) + static_cast<size_t>(d);
          bound[d] += weight[i] * move[i] * std::fabs(in.v.values[v] - o[d]);
          greatest = std::max(greatest, in.v.moved[v]);
        }
        bound[d] += greatest;
      }
      if (c.format != KvFormat::kI16) continue;
      // Products of a weight and its value's step, of which the greatest of a chunk is kWeightSteps steps: half a step.
      for (int64_t chunk = first / kChunk * kChunk; chunk <= p; chunk += kChunk) {
        const int64_t from = std::max(first, chunk), to = std::min(p + 1, chunk + kChunk);
        const auto step_of = [&](int64_t j) {
          double largest = 0;
          for (int64_t d = 0; d < dims; ++d) largest = std::max(largest, std::fabs(in.v.values[at(j) + static_cast<size_t>(d)]));
          return largest / kKvSteps;
        };
        double greatest = 0;
        for (int64_t j = from; j < to; ++j) greatest = std::max(greatest, weight[static_cast<size_t>(j - first)] * step_of(j));
        for (int64_t j = from; j < to; ++j)
          for (int64_t d = 0; d < dims; ++d)
            out.weighed[begin + static_cast<size_t>(d)] +=
                0.501 * greatest / kWeightSteps * std::fabs(in.v.values[at(j) + static_cast<size_t>(d)]) / step_of(j);
      }
    }
  return out;
}

}  // namespace pellucid
