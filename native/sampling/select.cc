// Top-k, top-p and min-p without sorting a vocabulary.
#include <algorithm>
#include <bit>
#include <functional>
#include <limits>
#include <stdexcept>

#include "sampling/arithmetic.h"
#include "sampling/buckets.h"
#include "sampling/mass.h"
#include "sampling/sampling.h"

namespace pellucid::sampling {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr double kNear[] = {4.5, 10.0};  // what is looked at first: so far below the top

// A key whose ascending order is (logit descending, id ascending). Both zeros are one value.
uint64_t order_key(float value, int64_t id) {
  const uint32_t bits = std::bit_cast<uint32_t>(value + 0.0f);
  const uint32_t ascending = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
  return static_cast<uint64_t>(~ascending) << 32 | static_cast<uint32_t>(id);
}
int64_t key_id(uint64_t key) { return static_cast<int64_t>(key & 0xffffffffu); }

// The k-th largest run maximum: k runs hold a logit at least as large, so the k largest logits are all >= it.
float lower_bound_of_top(const Runs& r, int64_t k) {
  if (k > static_cast<int64_t>(r.maxima.size())) return -kInfinity;
  std::vector<float> m = r.maxima;
  std::nth_element(m.begin(), m.begin() + (k - 1), m.end(), std::greater<float>());
  return m[k - 1];
}

std::vector<uint64_t> top_keys(const float* x, int64_t n, int64_t k) {
  const Runs r = runs(x, n);
  const float bound = lower_bound_of_top(r, k);
  std::vector<uint64_t> keys;
  for (int64_t i = 0; i < static_cast<int64_t>(r.maxima.size()); ++i) {
    if (r.maxima[i] < bound) continue;
    for (int64_t j = i * kRun; j < std::min(n, (i + 1) * kRun); ++j)
      if (x[j] >= bound) keys.push_back(order_key(x[j], j));
  }
  if (k < static_cast<int64_t>(keys.size())) std::nth_element(keys.begin(), keys.begin() + k, keys.end());
  keys.resize(k);
  return keys;
}

// Weights, and the buckets by distance to the top, so that a lower logit is never in an earlier bucket.
PELLUCID_WIDE void weigh(const float* run, double top, uint64_t* weights, int32_t* buckets) {
  for (int i = 0; i < kRun; ++i) {
    const double d = static_cast<double>(run[i]) - top;
    weights[i] = weight_of(d);
    buckets[i] = static_cast<int32_t>(-(d > kLeastWeight ? d : kLeastWeight) * kBucketsPerUnit);
  }
}

struct Place {
  uint64_t key, weight;
  bool operator<(const Place& other) const { return key < other.key; }
};

// The key of the last token whose weight is needed for p of all.
uint64_t top_p_edge(const float* x, int64_t n, const Runs& r, double p) {
  Buckets buckets(x, n, r, weigh);
  const auto edge_at = [&](double wanted) {
    return buckets.edge<Place>(
        wanted, [&](int64_t id, uint64_t weight) { return Place{order_key(x[id], id), weight}; },
        [](int32_t bucket) { return std::min(-kLeastWeight, (bucket + 1.0) / kBucketsPerUnit); });
  };
  // The cut is nearly always near the top. What is further away need not even be added up exactly, unless the cut falls
  // on another token for its lower bound than for its upper one.
  const std::vector<float> masses = run_masses(x, n, r);
  const Mass all = mass_beyond(masses, r, -1.0);
  const double enough = p * static_cast<double>(all.low);
  for (const double near : kNear) {
    const Mass beyond = mass_beyond(masses, r, near);
    if (static_cast<double>(all.high - beyond.low) < enough) continue;  // it is not that near
    buckets.fill(near);
    const double most = p * static_cast<double>(buckets.total() + beyond.high);
    const auto num_whole = static_cast<int64_t>(near * kBucketsPerUnit);  // buckets all of whose tokens are in the runs above
    if (static_cast<double>(buckets.of_first(num_whole)) < most) continue;
    const auto edge = edge_at(most);
    if (static_cast<double>(edge.before) < p * static_cast<double>(buckets.total() + beyond.low)) return edge.last.key;
    return edge_at(p * static_cast<double>(buckets.total() + weight_beyond(x, n, r, near))).last.key;
  }
  buckets.fill(-kLeastWeight);
  return edge_at(p * static_cast<double>(buckets.total())).last.key;
}

// All after (value, id) in the order become -inf.
PELLUCID_WIDE void cut_after(float* x, int64_t n, float value, int64_t id) {
  for (int64_t i = 0; i <= id; ++i) x[i] = x[i] >= value ? x[i] : -kInfinity;
  for (int64_t i = id + 1; i < n; ++i) x[i] = x[i] > value ? x[i] : -kInfinity;
}

}  // namespace

void top_k(const float* x, int64_t n, int64_t k, int32_t* ids) {
  if (k <= 0) return;
  std::vector<uint64_t> keys = top_keys(x, n, k);
  std::sort(keys.begin(), keys.end());
  for (int64_t i = 0; i < k; ++i) ids[i] = static_cast<int32_t>(key_id(keys[i]));
}

void keep_top_k(float* x, int64_t n, int64_t k, bool all_ties) {
  if (k >= n || k <= 0) return;
  const std::vector<uint64_t> keys = top_keys(x, n, k);
  const int64_t last = key_id(*std::max_element(keys.begin(), keys.end()));
  cut_after(x, n, x[last], all_ties ? n - 1 : last);
}

void keep_top_p(float* x, int64_t n, double p, int64_t min_keep) {
  if (n > int64_t{1} << 19) throw std::length_error("keep_top_p: a vocabulary of over 2^19 could overflow its sums");
  const Runs r = runs(x, n);
  if (r.all.id < 0 || p >= 1.0) return;
  uint64_t key = top_p_edge(x, n, r, p);
  if (min_keep > 1) {  // the first min_keep are a head of the order too: the longer one stays
    const std::vector<uint64_t> keys = top_keys(x, n, std::min(min_keep, n));
    key = std::max(key, *std::max_element(keys.begin(), keys.end()));
  }
  const int64_t id = key_id(key);
  cut_after(x, n, x[id], id);
}

void keep_min_p(float* x, int64_t n, double p, int64_t min_keep) {
  const Maximum m = maximum(x, n);
  if (m.id >= 0 && p > 0.0) keep_at_least(x, n, m.value, log_positive(p), min_keep, false);
}

}  // namespace pellucid::sampling
