// Typical sampling without sorting a vocabulary: the same buckets as top-p, over the distance to the entropy.
#include <algorithm>
#include <bit>
#include <limits>
#include <stdexcept>
#include <vector>

#include "sampling/arithmetic.h"
#include "sampling/cuts.h"
#include "sampling/mass.h"
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

struct Edge {
  Place place;      // the last that stays
  uint64_t before;  // the weight of all that come before it
};

// Where the weights in order first reach `wanted`. sums: of each bucket, complete up to the one that it falls in.
Edge edge_at(const float* x, int64_t n, const Runs& r, const Entropy& h, double reach,
             const std::vector<uint64_t>& sums, double wanted) {
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
  while (static_cast<double>(before + edge[last].weight) < wanted) before += edge[last++].weight;
  return {edge[last], before};
}

// The last place that is needed for p of all.
Place edge_of(const float* x, int64_t n, const Runs& r, const Entropy& h, double p) {
  std::vector<uint64_t> sums(kBuckets);
  uint64_t nearby = 0;
  const auto fill = [&](double reach) {
    std::fill(sums.begin(), sums.end(), 0);
    nearby = 0;
    for_each_run(x, n, r, h, reach, [&](int64_t, int64_t count, const uint64_t* weights, const int32_t* buckets) {
      for (int64_t j = 0; j < count; ++j) sums[buckets[j]] += weights[j], nearby += weights[j];
    });
  };
  // What is nearer to the entropy than kNear on the far side of it lies within `reach` of the top; nearly always the
  // edge does, and the weight of the rest follows from the normaliser closely enough.
  const double head = h.log_normalizer - h.nats;  // the logit whose surprise is the entropy
  const double reach = static_cast<double>(r.all.value) - head + kNear;
  if (reach < -kLeastWeight) {
    fill(reach);
    const Mass all = mass_of(h.sum, n);
    uint64_t nearer = 0;  // of whole buckets, all of whose tokens are in the runs above
    for (int32_t b = 0; b + 1 < static_cast<int32_t>(kNear * kBucketsPerUnit); ++b) nearer += sums[b];
    const double most = p * static_cast<double>(all.high);
    if (static_cast<double>(nearer) >= most) {
      const Edge edge = edge_at(x, n, r, h, reach, sums, most);
      if (static_cast<double>(edge.before) < p * static_cast<double>(all.low)) return edge.place;
      const double wanted = p * static_cast<double>(nearby + weight_beyond(x, n, r, reach));
      return edge_at(x, n, r, h, reach, sums, wanted).place;
    }
  }
  fill(-kLeastWeight);
  return edge_at(x, n, r, h, -kLeastWeight, sums, p * static_cast<double>(nearby)).place;
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
