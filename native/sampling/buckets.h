// Cuts by mass without sorting a vocabulary: weights go into buckets along an order, and only the bucket in which the cut
// falls is put in order.
#pragma once
#include <algorithm>
#include <bit>
#include <cstdint>
#include <vector>

#include "sampling/arithmetic.h"
#include "sampling/sampling.h"

namespace pellucid::sampling {

inline constexpr double kLeastWeight = -31.2;  // exp of anything lower is under half of 2^-44: weight 0
inline constexpr int kBucketsPerUnit = 128;
inline constexpr int kBuckets = 32 * kBucketsPerUnit;

// exp(distance) in whole units of 2^-44, to nearest; distance = x - max <= 0.
inline uint64_t weight_of(double distance) {
  const double rounded = exp_negative(distance > kLeastWeight ? distance : kLeastWeight) * 0x1p44 + 0x1p52;
  return std::bit_cast<uint64_t>(rounded) & 0xfffffffffffffull;
}

// weigh(run, max, weights, buckets) does one whole run of logits: weight and bucket of each; no bucket holds a token that
// comes before one of an earlier bucket.
template <class Weigh> class Buckets {
 public:
  Buckets(const float* x, int64_t n, const Runs& r, Weigh weigh) : x_(x), n_(n), runs_(r), weigh_(weigh), sums_(kBuckets) {}

  // Puts the runs whose largest logit is no further than `reach` below the top into the buckets, and no others.
  void fill(double reach) {
    std::fill(sums_.begin(), sums_.end(), 0);
    total_ = 0;
    for_each_run(reach, [&](int64_t, int64_t count, const uint64_t* weights, const int32_t* buckets) {
      for (int64_t j = 0; j < count; ++j) sums_[buckets[j]] += weights[j], total_ += weights[j];
    });
  }

  uint64_t total() const { return total_; }
  uint64_t of_first(int64_t count) const {
    uint64_t sum = 0;
    for (int64_t b = 0; b < count; ++b) sum += sums_[b];
    return sum;
  }

  // A place: of one token in the order (operator<), and its weight.
  template <class Place> struct Edge {
    Place last;       // with its weight, the weights in order reach what is wanted
    uint64_t before;  // the weight of all that come before it
  };

  // The buckets are complete up to the one that the edge falls in. place_of(id, weight); reach_of(bucket): all of the
  // bucket's tokens are in runs no further than that below the top.
  template <class Place> Edge<Place> edge(double wanted, auto place_of, auto reach_of) const {
    int32_t bucket = 0;
    uint64_t before = 0;
    while (static_cast<double>(before + sums_[bucket]) < wanted) before += sums_[bucket++];
    std::vector<Place> places;
    for_each_run(reach_of(bucket), [&](int64_t start, int64_t count, const uint64_t* weights, const int32_t* buckets) {
      for (int64_t j = 0; j < count; ++j)
        if (buckets[j] == bucket && weights[j] > 0) places.push_back(place_of(start + j, weights[j]));
    });
    if (!std::is_sorted(places.begin(), places.end())) std::sort(places.begin(), places.end());
    size_t last = 0;
    while (static_cast<double>(before + places[last].weight) < wanted) before += places[last++].weight;
    return {places[last], before};
  }

 private:
  // Calls use(first id, count, weights, buckets), in order.
  void for_each_run(double reach, auto use) const {
    uint64_t weights[kRun];
    int32_t buckets[kRun];
    float padded[kRun];
    for (int64_t i = 0; i < static_cast<int64_t>(runs_.maxima.size()); ++i) {
      if (static_cast<double>(runs_.all.value) - runs_.maxima[i] > reach) continue;
      weigh_(whole_run(x_, n_, i, padded), runs_.all.value, weights, buckets);
      use(i * kRun, std::min(n_ - i * kRun, kRun), weights, buckets);
    }
  }

  const float* x_;
  const int64_t n_;
  const Runs& runs_;
  const Weigh weigh_;
  std::vector<uint64_t> sums_;
  uint64_t total_ = 0;
};

}  // namespace pellucid::sampling
