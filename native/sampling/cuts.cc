// Cuts by probability, entropy and spread, each in one or two passes over the logits.
#include "sampling/cuts.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <vector>

#include "sampling/arithmetic.h"
#include "sampling/sampling.h"

namespace pellucid::sampling {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr double kNegligible = -50.0;  // as in softmax.cc
constexpr double kLeastExponent = -700.0;
constexpr double kLog2 = 0x1.62e42fefa39efp-1;

double sum_of(const double lanes[8]) {
  return ((lanes[0] + lanes[1]) + (lanes[2] + lanes[3])) + ((lanes[4] + lanes[5]) + (lanes[6] + lanes[7]));
}

// One run's exponentials, added to `sums`, and they times their distance to the top, added to `moments`.
PELLUCID_WIDE void add_entropies(const float* run, double top, double sums[8], double moments[8]) {
  double e[kRun], m[kRun];
  for (int i = 0; i < kRun; ++i) {
    const double d = static_cast<double>(run[i]) - top;
    const double bounded = d > kNegligible ? d : kNegligible;
    const double v = exp_negative(bounded);
    e[i] = d > kNegligible ? v : 0.0;
    m[i] = e[i] * bounded;
  }
  for (int i = 0; i < kRun; i += 8)
    for (int j = 0; j < 8; ++j) sums[j] += e[i + j], moments[j] += m[i + j];
}

// The float of a place in the order of all floats: 0 for -inf, ascending.
float float_at(uint32_t place) {
  constexpr uint32_t kNegatives = 0x7f800000u;  // from -inf to the negative number nearest to 0
  return std::bit_cast<float>(place < kNegatives ? 0xff800000u - place : place - kNegatives);
}

// The least float f with f - reference >= least in float64, by bisection: so a row is compared as floats. (Stepping
// from the sum would take for ever about 0, where a thousand million floats give one difference.)
float least_kept(double reference, double least) {
  uint32_t low = 0, high = 2u * 0x7f800000u;  // -inf is not kept, +inf is
  while (high - low > 1) {
    const uint32_t middle = low + (high - low) / 2;
    (static_cast<double>(float_at(middle)) - reference >= least ? high : low) = middle;
  }
  return float_at(high);
}

PELLUCID_WIDE void mask_under(float* x, int64_t n, float least) {
  for (int64_t i = 0; i < n; ++i) x[i] = x[i] >= least ? x[i] : -kInfinity;
}

// x - reference >= least stays. Called where at least one logit is kept, so that such a float exists.
void mask_below(float* x, int64_t n, double reference, double least) { mask_under(x, n, least_kept(reference, least)); }

PELLUCID_WIDE void exponentials(const float* x, int64_t n, double reference, double* out) {
  for (int64_t i = 0; i < n; ++i) {
    const double d = static_cast<double>(x[i]) - reference;
    const double v = exp_negative(d > kLeastExponent ? (d < 0.0 ? d : 0.0) : kLeastExponent);
    out[i] = d > kLeastExponent ? v : 0.0;
  }
}

// Counts, sum, and sum of squares about `mean`, of the logits that are not -inf: lanes of 8, one fixed tree.
PELLUCID_WIDE double spread(const float* x, int64_t n, double mean, bool squares, int64_t* count) {
  double lanes[8] = {};
  int64_t counts[8] = {};
  const auto add = [&](int64_t i, int j) {
    const bool finite = x[i] > -kInfinity;
    const double d = finite ? static_cast<double>(x[i]) - mean : 0.0;
    lanes[j] += squares ? d * d : d;
    counts[j] += finite;
  };
  const int64_t whole = n / 8 * 8;
  for (int64_t i = 0; i < whole; i += 8)
    for (int j = 0; j < 8; ++j) add(i + j, j);
  for (int64_t i = whole; i < n; ++i) add(i, static_cast<int>(i - whole));
  *count = 0;
  for (const int64_t c : counts) *count += c;
  return sum_of(lanes);
}

}  // namespace

Entropy entropy(const float* x, int64_t n) {
  const Runs r = runs(x, n);
  if (r.all.id < 0) return {-std::numeric_limits<double>::infinity(), 0.0, 0.0};
  const double top = r.all.value;
  double sums[8] = {}, moments[8] = {};
  float padded[kRun];
  for (int64_t i = 0; i < static_cast<int64_t>(r.maxima.size()); ++i)
    if (r.maxima[i] - top > kNegligible) add_entropies(whole_run(x, n, i, padded), top, sums, moments);
  const double sum = sum_of(sums), log_sum = log_positive(sum);
  return {top + log_sum, log_sum - sum_of(moments) / sum, sum};
}

void probabilities(const float* x, int64_t n, double* out) {
  const double reference = log_normalizer(x, n);
  if (reference == -std::numeric_limits<double>::infinity()) {
    std::fill(out, out + n, 0.0);
    return;
  }
  exponentials(x, n, reference, out);
}

void keep_at_least(float* x, int64_t n, double reference, double least, int64_t min_keep, bool all_ties) {
  // Both conditions keep a head of the order: the longer one stays.
  if (min_keep > n) min_keep = n;
  int64_t edge = maximum(x, n).id;
  if (edge < 0) return;
  std::vector<int32_t> ids;
  if (min_keep > 1) {
    ids.resize(min_keep);
    top_k(x, n, min_keep, ids.data());
    edge = ids.back();
  }
  if (static_cast<double>(x[edge]) - reference >= least) return mask_below(x, n, reference, least);
  keep_top_k(x, n, std::max<int64_t>(min_keep, 1), all_ties);
}

void keep_epsilon(float* x, int64_t n, double epsilon, int64_t min_keep, bool all_ties) {
  keep_at_least(x, n, log_normalizer(x, n), log_positive(epsilon), min_keep, all_ties);
}

void keep_eta(float* x, int64_t n, double epsilon, int64_t min_keep, bool all_ties) {
  const Entropy h = entropy(x, n);
  const double log_epsilon = log_positive(epsilon);
  keep_at_least(x, n, h.log_normalizer, std::min(log_epsilon, 0.5 * log_epsilon - h.nats), min_keep, all_ties);
}

void keep_surprise(float* x, int64_t n, double bits) {
  keep_at_least(x, n, log_normalizer(x, n), -bits * kLog2, 1, false);
}

void keep_top_n_sigma(float* x, int64_t n, double factor) {
  const Maximum m = maximum(x, n);
  if (m.id < 0) return;
  int64_t count;
  const double mean = spread(x, n, 0.0, false, &count) / static_cast<double>(count);
  const double deviation = std::sqrt(spread(x, n, mean, true, &count) / static_cast<double>(count));
  mask_below(x, n, m.value, -(factor * deviation));
}

void exclude_top(float* x, int64_t n, double threshold, int64_t min_keep) {
  const double reference = log_normalizer(x, n), least = log_positive(threshold);
  int64_t last = -1, above = 0, finite = 0;
  for (int64_t i = 0; i < n; ++i) {
    finite += x[i] > -kInfinity;
    if (!(static_cast<double>(x[i]) - reference >= least)) continue;
    ++above;
    if (last < 0 || x[i] <= x[last]) last = i;
  }
  if (above < 2 || finite - (above - 1) < min_keep) return;
  for (int64_t i = 0; i < n; ++i)
    if (i != last && static_cast<double>(x[i]) - reference >= least) x[i] = -kInfinity;
}

PELLUCID_WIDE static void aim(float* x, int64_t n, double reference, double target) {
  for (int64_t i = 0; i < n; ++i) {
    const double d = static_cast<double>(x[i]) - reference;
    const double v = exp_negative(d > kLeastExponent ? (d < 0.0 ? d : 0.0) : kLeastExponent);
    const double p = d > kLeastExponent ? v : 0.0;
    const double gap = p > target ? p - target : target - p, distance = gap / 0.3;
    x[i] = x[i] > -kInfinity ? static_cast<float>(5.0 - 10.0 * distance * distance / (1.0 + distance)) : -kInfinity;
  }
}

void aim_at_probability(float* x, int64_t n, double target) { aim(x, n, log_normalizer(x, n), target); }

double exp_of(double x) { return x <= 0.0 ? exp_negative(x) : 1.0 / exp_negative(-x); }
double log_of(double x) { return log_positive(x); }

}  // namespace pellucid::sampling
