// Top-k, top-p and min-p without sorting a vocabulary.
#include <algorithm>
#include <bit>
#include <functional>
#include <limits>
#include <stdexcept>

#include "sampling/arithmetic.h"
#include "sampling/mass.h"
#include "sampling/sampling.h"

namespace pellucid::sampling {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr double kLeastWeight = -31.2;  // exp of anything lower is under half of 2^-44: weight 0
constexpr int kBucketsPerUnit = 128;
constexpr int kBuckets = 32 * kBucketsPerUnit;
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

// One run's weights: exp(x - top) in whole units of 2^-44, to nearest; and buckets: the distance to the top in steps
// of 1/128, so that a lower logit is never in an earlier bucket.
PELLUCID_WIDE void weigh(const float* run, double top, uint64_t* weights, int32_t* buckets) {
  for (int i = 0; i < kRun; ++i) {
    const double d = static_cast<double>(run[i]) - top;
    const double bounded = d > kLeastWeight ? d : kLeastWeight;  // there the weight is 0
    const double rounded = exp_negative(bounded) * 0x1p44 + 0x1p52;
    weights[i] = std::bit_cast<uint64_t>(rounded) & 0xfffffffffffffull;
    buckets[i] = static_cast<int32_t>(-bounded * kBucketsPerUnit);
  }
}

// Calls use(first id, count, weights, buckets) for each run whose largest logit is no further than `distance` below
// the top, in order.
void for_each_run(const float* x, int64_t n, const Runs& r, double distance, auto use) {
  uint64_t weights[kRun];
  int32_t buckets[kRun];
  float padded[kRun];
  for (int64_t i = 0; i < static_cast<int64_t>(r.maxima.size()); ++i) {
    if (static_cast<double>(r.all.value) - r.maxima[i] > distance) continue;
    const int64_t start = i * kRun, count = std::min(n - start, kRun);
    const float* run = x + start;
    if (count < kRun) {
      std::fill(std::copy(run, run + count, padded), padded + kRun, -kInfinity);
      run = padded;
    }
    weigh(run, r.all.value, weights, buckets);
    use(start, count, weights, buckets);
  }
}

// The sum of one run's weights.
PELLUCID_WIDE uint64_t weight_of(const float* run, double top) {
  uint64_t sum = 0;
  for (int i = 0; i < kRun; ++i) {
    const double d = static_cast<double>(run[i]) - top;
    const double rounded = exp_negative(d > kLeastWeight ? d : kLeastWeight) * 0x1p44 + 0x1p52;
    sum += std::bit_cast<uint64_t>(rounded) & 0xfffffffffffffull;
  }
  return sum;
}

// All after (value, id) in the order become -inf.
PELLUCID_WIDE void cut_after(float* x, int64_t n, float value, int64_t id) {
  for (int64_t i = 0; i <= id; ++i) x[i] = x[i] >= value ? x[i] : -kInfinity;
  for (int64_t i = id + 1; i < n; ++i) x[i] = x[i] > value ? x[i] : -kInfinity;
}

}  // namespace

uint64_t weight_beyond(const float* x, int64_t n, const Runs& r, double distance) {
  uint64_t sum = 0;
  float padded[kRun];
  for (int64_t i = 0; i < static_cast<int64_t>(r.maxima.size()); ++i) {
    const double run_distance = static_cast<double>(r.all.value) - r.maxima[i];
    if (!(run_distance > distance) || run_distance > -kLeastWeight) continue;
    const float* run = x + i * kRun;
    if ((i + 1) * kRun > n) {
      std::fill(std::copy(run, x + n, padded), padded + kRun, -kInfinity);
      run = padded;
    }
    sum += weight_of(run, r.all.value);
  }
  return sum;
}

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

namespace {

struct Edge {
  uint64_t key;     // of the last token that stays
  uint64_t before;  // the weight of all that come before it
};

// Where the weights in order first reach `wanted`. sums: of each bucket, complete up to the one that it falls in. Only
// that one is put in order.
Edge edge_at(const float* x, int64_t n, const Runs& r, const std::vector<uint64_t>& sums, double wanted) {
  int32_t edge_bucket = 0;
  uint64_t before = 0;
  while (static_cast<double>(before + sums[edge_bucket]) < wanted) before += sums[edge_bucket++];
  struct Item {
    uint64_t key, weight;
  };
  std::vector<Item> edge;
  const double edge_distance = std::min(-kLeastWeight, (edge_bucket + 1.0) / kBucketsPerUnit);
  const auto collect = [&](int64_t start, int64_t count, const uint64_t* weights, const int32_t* buckets) {
    for (int64_t j = 0; j < count; ++j)
      if (buckets[j] == edge_bucket && weights[j] > 0)
        edge.push_back({order_key(x[start + j], start + j), weights[j]});
  };
  for_each_run(x, n, r, edge_distance, collect);
  const auto by_key = [](const Item& a, const Item& b) { return a.key < b.key; };
  if (!std::is_sorted(edge.begin(), edge.end(), by_key)) std::sort(edge.begin(), edge.end(), by_key);
  size_t last = 0;
  while (static_cast<double>(before + edge[last].weight) < wanted) before += edge[last++].weight;
  return {edge[last].key, before};
}

// The last token whose weight is needed for p of all.
uint64_t top_p_edge(const float* x, int64_t n, const Runs& r, double p) {
  std::vector<uint64_t> sums(kBuckets);
  uint64_t nearby = 0;
  const auto fill = [&](double distance) {
    std::fill(sums.begin(), sums.end(), 0);
    nearby = 0;
    for_each_run(x, n, r, distance, [&](int64_t, int64_t count, const uint64_t* weights, const int32_t* buckets) {
      for (int64_t j = 0; j < count; ++j) sums[buckets[j]] += weights[j], nearby += weights[j];
    });
  };
  // The cut is nearly always near the top. What is further away need not even be added up exactly, unless the cut falls
  // on another token for its lower bound than for its upper one.
  const std::vector<float> masses = run_masses(x, n, r);
  const Mass all = mass_beyond(masses, r, -1.0);
  const double enough = p * static_cast<double>(all.low);
  for (const double near : kNear) {
    const Mass beyond = mass_beyond(masses, r, near);
    if (static_cast<double>(all.high - beyond.low) < enough) continue;  // it is not that near
    fill(near);
    uint64_t nearer = 0;  // of whole buckets all of whose tokens are in the runs above
    for (int32_t b = 0; (b + 1.0) / kBucketsPerUnit <= near; ++b) nearer += sums[b];
    const double most = p * static_cast<double>(nearby + beyond.high);
    if (static_cast<double>(nearer) < most) continue;
    const Edge edge = edge_at(x, n, r, sums, most);
    if (static_cast<double>(edge.before) < p * static_cast<double>(nearby + beyond.low)) return edge.key;
    return edge_at(x, n, r, sums, p * static_cast<double>(nearby + weight_beyond(x, n, r, near))).key;
  }
  fill(-kLeastWeight);
  return edge_at(x, n, r, sums, p * static_cast<double>(nearby)).key;
}

}  // namespace

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
