// Typical sampling without sorting a vocabulary: the same buckets as top-p, over the distance to the entropy.
#include <algorithm>
#include <limits>
#include <stdexcept>
#include <vector>

#include "sampling/buckets.h"
#include "sampling/cuts.h"
#include "sampling/mass.h"
#include "sampling/sampling.h"

namespace pellucid::sampling {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr int kNear = 6;

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

// Weights, and the buckets by distance to the entropy; the last one holds all that is further away.
PELLUCID_WIDE void weigh(const float* run, double top, const Entropy& h, uint64_t* weights, int32_t* buckets) {
  const double normalizer = h.log_normalizer, nats = h.nats;
  for (int i = 0; i < kRun; ++i) {
    weights[i] = weight_of(static_cast<double>(run[i]) - top);
    const double gap = (normalizer - static_cast<double>(run[i])) - nats;
    const double scaled = (gap < 0.0 ? -gap : gap) * kBucketsPerUnit;
    buckets[i] = static_cast<int32_t>(scaled < kBuckets - 1 ? scaled : kBuckets - 1);
  }
}

// The last place that is needed for p of all.
Place edge_of(const float* x, int64_t n, const Runs& r, const Entropy& h, double p) {
  Buckets buckets(x, n, r, [&](const float* run, double top, uint64_t* weights, int32_t* numbers) {
    weigh(run, top, h, weights, numbers);
  });
  const auto edge_at = [&](double wanted, double reach) {
    return buckets.edge<Place>(
        wanted, [&](int64_t id, uint64_t weight) { return Place{distance_of(x[id], h), id, weight}; },
        [&](int32_t) { return reach; });
  };
  // What is nearer to the entropy than kNear on the far side of it lies within `reach` of the top (a run whose largest logit
  // is further has none nearer); nearly always the edge does, and the weight of the rest follows from the normaliser
  // closely enough.
  const double head = h.log_normalizer - h.nats;  // the logit whose surprise is the entropy
  const double reach = static_cast<double>(r.all.value) - head + kNear;
  if (reach < -kLeastWeight) {
    buckets.fill(reach);
    const Mass all = mass_of(h.sum, n);
    const double most = p * static_cast<double>(all.high);
    const int64_t num_whole = kNear * kBucketsPerUnit - 1;  // buckets all of whose tokens are in the runs above
    if (static_cast<double>(buckets.of_first(num_whole)) >= most) {
      const auto edge = edge_at(most, reach);
      if (static_cast<double>(edge.before) < p * static_cast<double>(all.low)) return edge.last;
      return edge_at(p * static_cast<double>(buckets.total() + weight_beyond(x, n, r, reach)), reach).last;
    }
  }
  buckets.fill(-kLeastWeight);
  return edge_at(p * static_cast<double>(buckets.total()), -kLeastWeight).last;
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
