// Typical sampling without sorting a vocabulary: the same buckets as top-p, over the distance to the entropy.
#include <algorithm>
#include <bit>
#include <limits>
#include <stdexcept>
#include <vector>

#include "sampling/arithmetic.h"
#include "sampling/cuts.h"
#include "sampling/sampling.h"

namespace pellucid::sampling {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr double kLeastWeight = -31.2;  // as in select.cc: below it a weight is 0
constexpr int kBucketsPerUnit = 128;
constexpr double kNear = 6.0;
constexpr int kBuckets = 32 * kBucketsPerUnit;  // the last one holds all that is further away

// One place of the order: |(normalizer - x) - entropy| ascending, then id ascending.
struct Place {
  double distance;
  int64_t id;
  uint64_t weight;
  bool operator<(const Place& other) const {
    return distance != other.distance ? distance < other.distance : id < other.id;
  }
};

double distance_of(float x, const Entropy& h) {
  const double gap = (h.log_normalizer - static_cast<double>(x)) - h.nats;
  return gap < 0.0 ? -gap : gap;
}

PELLUCID_WIDE void weigh(const float* run, double top, const Entropy& h, uint64_t* weights, int32_t* buckets) {
  const double normalizer = h.log_normalizer, nats = h.nats;
  for (int i = 0; i < kRun; ++i) {
    const double d = static_cast<double>(run[i]) - top;
    const double rounded = exp_negative(d > kLeastWeight ? d : kLeastWeight) * 0x1p44 + 0x1p52;
    weights[i] = std::bit_cast<uint64_t>(rounded) & 0xfffffffffffffull;
    const double gap = (normalizer - static_cast<double>(run[i])) - nats;
    const double scaled = (gap < 0.0 ? -gap : gap) * kBucketsPerUnit;
    buckets[i] = static_cast<int32_t>(scaled < kBuckets - 1 ? scaled : kBuckets - 1);
  }
}

// Runs whose largest logit is no further than `reach` below the top. (A token of another one is further still.)
void for_each_run(const float* x, int64_t n, const Runs& r, const Entropy& h, double reach, auto use) {
  uint64_t weights[kRun];
  int32_t buckets[kRun];
  float padded[kRun];
  for (int64_t i = 0; i < static_cast<int64_t>(r.maxima.size()); ++i) {
    if (static_cast<double>(r.all.value) - r.maxima[i] > reach) continue;
    const int64_t start = i * kRun, count = std::min(n - start, kRun);
    const float* run = x + start;
    if (count < kRun) {
      std::fill(std::copy(run, run + count, padded), padded + kRun, -kInfinity);
      run = padded;
    }
    weigh(run, r.all.value, h, weights, buckets);
    use(start, count, weights, buckets);
  }
}

// The last place that stays: where the weights in order first reach p of their sum.
Place edge_of(const float* x, int64_t n, const Runs& r, const Entropy& h, double p) {
  std::vector<uint64_t> sums(kBuckets);
  uint64_t total = 0;
  // What is nearer to the entropy than kNear on the far side of it lies within `reach` of the top; nearly always the
  // edge does, and the rest is only added up. If it does not, all is put in buckets.
  const double head = h.log_normalizer - h.nats;  // the logit whose surprise is the entropy
  double reach = std::min(-kLeastWeight, static_cast<double>(r.all.value) - head + kNear);
  for (bool found = false; !found;) {
    std::fill(sums.begin(), sums.end(), 0);
    total = 0;
    for_each_run(x, n, r, h, reach, [&](int64_t, int64_t count, const uint64_t* weights, const int32_t* buckets) {
      for (int64_t j = 0; j < count; ++j) sums[buckets[j]] += weights[j], total += weights[j];
    });
    uint64_t nearer = 0;  // of whole buckets, all of whose tokens are in the runs above
    for (int32_t b = 0; b + 1 < static_cast<int32_t>(kNear * kBucketsPerUnit); ++b) nearer += sums[b];
    total += weight_beyond(x, n, r, reach);
    found = reach >= -kLeastWeight || static_cast<double>(nearer) >= p * static_cast<double>(total);
    if (!found) reach = -kLeastWeight;
  }
  const double wanted = p * static_cast<double>(total);
  int32_t bucket = 0;
  uint64_t before = 0;
  while (static_cast<double>(before + sums[bucket]) < wanted) before += sums[bucket++];
  std::vector<Place> edge;
  for_each_run(x, n, r, h, reach, [&](int64_t start, int64_t count, const uint64_t* weights, const int32_t* buckets) {
    for (int64_t j = 0; j < count; ++j)
      if (buckets[j] == bucket && weights[j] > 0) edge.push_back({distance_of(x[start + j], h), start + j, weights[j]});
  });
  std::sort(edge.begin(), edge.end());
  size_t last = 0;
  for (before += edge[0].weight; static_cast<double>(before) < wanted;) before += edge[++last].weight;
  return edge[last];
}

PELLUCID_WIDE void keep_near(float* x, int64_t n, double normalizer, double nats, double distance, int64_t last_tie) {
  for (int64_t i = 0; i < n; ++i) {
    const double gap = (normalizer - static_cast<double>(x[i])) - nats, d = gap < 0.0 ? -gap : gap;
    x[i] = d < distance || (d == distance && i <= last_tie) ? x[i] : -kInfinity;
  }
}

}  // namespace

void keep_typical(float* x, int64_t n, double p, int64_t min_keep, bool all_ties) {
  if (n > int64_t{1} << 19) throw std::length_error("keep_typical: a vocabulary of over 2^19 could overflow its sums");
  const Runs r = runs(x, n);
  if (r.all.id < 0) return;
  const Entropy h = entropy(x, n);
  Place edge = edge_of(x, n, r, h, p);
  if (min_keep > 1) {
    std::vector<Place> places;
    for (int64_t i = 0; i < n; ++i)
      if (x[i] > -kInfinity) places.push_back({distance_of(x[i], h), i, 0});
    const int64_t k = std::min<int64_t>(min_keep, static_cast<int64_t>(places.size()));
    std::nth_element(places.begin(), places.begin() + (k - 1), places.end());
    if (edge < places[k - 1]) edge = places[k - 1];
  }
  keep_near(x, n, h.log_normalizer, h.nats, edge.distance, all_ties ? n - 1 : edge.id);
}

}  // namespace pellucid::sampling
