// Bounds of sums of weights, from exponentials in float32.
//
// The error of one exponential, relative: x - max is rounded (2^-24 of at most 31.2: 1.9e-6), the reduction to
// |r| <= log(2) / 2 rounds k log(2) and takes log(2) as a float (1.9e-6 + 0.9e-6), the series to r^6 leaves r^7 / 5040
// (1.2e-7) and rounds seven times (4.2e-7), the sums of 64 round six times (3.6e-7): below 6e-6. Besides, an exact
// weight is rounded to a unit, and none counts below -31.2, where the bounded exponential is 0.496 units: one unit each.
#include "sampling/mass.h"

#include <algorithm>
#include <bit>

#include "sampling/buckets.h"
#include "wide.h"

namespace pellucid::sampling {
namespace {

constexpr double kRelative = 2e-5;     // of float32 exponentials, three times as much as was derived above
constexpr double kRelativeSum = 1e-9;  // of a float64 sum of 2^19 terms, generously
constexpr double kUnits = 0x1p44;

PELLUCID_WIDE float approximate(const float* run, float top) {
  constexpr float magic = 0x1.8p23f;  // adding it rounds to an integer, which stands in the low bits
  constexpr auto least = static_cast<float>(kLeastWeight);
  float e[kRun];
  for (int i = 0; i < kRun; ++i) {
    const float d = run[i] - top;
    const float bounded = d > least ? d : least;
    const float shifted = bounded * 1.44269504f + magic;
    const float k = shifted - magic;
    const float r = bounded - k * 0.693147181f;
    float s = 1.0f / 720.0f;
    s = s * r + 1.0f / 120.0f;
    s = s * r + 1.0f / 24.0f;
    s = s * r + 1.0f / 6.0f;
    s = s * r + 0.5f;
    s = s * r + 1.0f;
    s = s * r + 1.0f;
    e[i] = s * std::bit_cast<float>((std::bit_cast<uint32_t>(shifted) + 127u) << 23);
  }
  for (int half = kRun / 2; half > 0; half /= 2)
    for (int j = 0; j < half; ++j) e[j] += e[j + half];
  return e[0];
}

// The sum of one run's weights.
PELLUCID_WIDE uint64_t weight_of_run(const float* run, double top) {
  uint64_t sum = 0;
  for (int i = 0; i < kRun; ++i) sum += weight_of(static_cast<double>(run[i]) - top);
  return sum;
}

Mass around(double sum, double relative, int64_t n) {
  const double units = sum * kUnits, width = units * relative + static_cast<double>(n) + 1.0;
  return {static_cast<uint64_t>(std::max(0.0, units - width)), static_cast<uint64_t>(units + width) + 1};
}

}  // namespace

std::vector<float> run_masses(const float* x, int64_t n, const Runs& r) {
  std::vector<float> masses(r.maxima.size());
  float padded[kRun];
  for (int64_t i = 0; i < static_cast<int64_t>(masses.size()); ++i) {
    if (static_cast<double>(r.all.value) - r.maxima[i] > -kLeastWeight) continue;
    masses[i] = approximate(whole_run(x, n, i, padded), r.all.value);
  }
  return masses;
}

Mass mass_beyond(const std::vector<float>& masses, const Runs& r, double distance) {
  double sum = 0.0;
  int64_t tokens = 0;
  for (size_t i = 0; i < masses.size(); ++i) {
    if (!(static_cast<double>(r.all.value) - r.maxima[i] > distance)) continue;
    sum += static_cast<double>(masses[i]);
    tokens += kRun;
  }
  return around(sum, kRelative, tokens);
}

Mass mass_of(double sum, int64_t n) { return around(sum, kRelativeSum, n); }

uint64_t weight_beyond(const float* x, int64_t n, const Runs& r, double distance) {
  uint64_t sum = 0;
  float padded[kRun];
  for (int64_t i = 0; i < static_cast<int64_t>(r.maxima.size()); ++i) {
    const double run_distance = static_cast<double>(r.all.value) - r.maxima[i];
    if (run_distance > distance && !(run_distance > -kLeastWeight))
      sum += weight_of_run(whole_run(x, n, i, padded), r.all.value);
  }
  return sum;
}

}  // namespace pellucid::sampling
