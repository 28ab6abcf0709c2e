// Maxima and the log-softmax normaliser.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <string>

#include "sampling/arithmetic.h"
#include "sampling/sampling.h"

namespace pellucid::sampling {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr double kNegligible = -50.0;  // exp of it times 2^18 is under 2^-53

// Four at once: every machine has it (wider ones are taken apart to single numbers where it has not).
typedef float Lanes __attribute__((vector_size(16)));
typedef int32_t Flags __attribute__((vector_size(16)));

// maxima[r] of each whole run; returns whether any logit is NaN or +inf.
bool run_maxima(const float* x, int64_t num_runs, float* maxima) {
  const Lanes infinity = {kInfinity, kInfinity, kInfinity, kInfinity};
  Flags sound = {-1, -1, -1, -1};
  for (int64_t r = 0; r < num_runs; ++r) {
    Lanes v[kRun / 4];
    std::memcpy(v, x + r * kRun, sizeof v);
    for (const Lanes& lanes : v) sound &= lanes < infinity;
    for (int half = kRun / 8; half > 0; half /= 2)
      for (int j = 0; j < half; ++j) v[j] = v[j] > v[j + half] ? v[j] : v[j + half];
    const float a = v[0][0] > v[0][2] ? v[0][0] : v[0][2], b = v[0][1] > v[0][3] ? v[0][1] : v[0][3];
    maxima[r] = a > b ? a : b;
  }
  return !(sound[0] && sound[1] && sound[2] && sound[3]);
}

[[noreturn]] void refuse(const float* x, int64_t n) {
  for (int64_t i = 0; i < n; ++i)
    if (!(x[i] < kInfinity))
      throw std::domain_error("the logit of token " + std::to_string(i) + " is " +
                              (std::isnan(x[i]) ? "NaN" : "+inf") + ", expected a finite number or -inf");
  throw std::logic_error("refuse: every logit is sound");
}

PELLUCID_WIDE void add_exponentials(const float* run, double maximum, double lanes[8]) {
  double e[kRun];
  for (int i = 0; i < kRun; ++i) {
    const double d = static_cast<double>(run[i]) - maximum;
    const double v = exp_negative(d > kNegligible ? d : kNegligible);
    e[i] = d > kNegligible ? v : 0.0;
  }
  for (int i = 0; i < kRun; i += 8)
    for (int j = 0; j < 8; ++j) lanes[j] += e[i + j];
}

}  // namespace

Runs runs(const float* x, int64_t n) {
  const int64_t whole = n / kRun;
  Runs out{std::vector<float>((n + kRun - 1) / kRun), {-kInfinity, -1}};
  if (run_maxima(x, whole, out.maxima.data())) refuse(x, n);
  if (whole * kRun < n) {
    float m = -kInfinity;
    for (int64_t i = whole * kRun; i < n; ++i) {
      if (!(x[i] < kInfinity)) refuse(x, n);
      m = std::max(m, x[i]);
    }
    out.maxima[whole] = m;
  }
  int64_t best = -1;
  for (int64_t r = 0; r < static_cast<int64_t>(out.maxima.size()); ++r)
    if (out.maxima[r] > out.all.value) out.all.value = out.maxima[r], best = r;
  if (best >= 0) {
    int64_t i = best * kRun;
    while (x[i] != out.all.value) ++i;
    out.all.id = i;
  }
  return out;
}

Maximum maximum(const float* x, int64_t n) { return runs(x, n).all; }

double log_normalizer(const float* x, int64_t n) {
  const Runs r = runs(x, n);
  if (r.all.id < 0) return -std::numeric_limits<double>::infinity();
  const double top = r.all.value;
  double lanes[8] = {};
  float padded[kRun];
  for (int64_t i = 0; i < static_cast<int64_t>(r.maxima.size()); ++i)
    if (r.maxima[i] - top > kNegligible) add_exponentials(whole_run(x, n, i, padded), top, lanes);
  const double sum = ((lanes[0] + lanes[1]) + (lanes[2] + lanes[3])) + ((lanes[4] + lanes[5]) + (lanes[6] + lanes[7]));
  return top + log_positive(sum);
}

}  // namespace pellucid::sampling
