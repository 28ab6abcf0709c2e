// The weight of the part of a vocabulary that is far from a cut by mass. Its bounds are enough, nearly always, to know where
// the cut falls. Weights: exp(x - max) in whole units of 2^-44, 0 for what is 31.2 or more below max (buckets.h).
#pragma once
#include <cstdint>
#include <vector>

#include "sampling/sampling.h"

namespace pellucid::sampling {

// low <= an exact sum of weights <= high.
struct Mass {
  uint64_t low, high;
};

// Of each run: about the sum of its exp(x - max); 0 where its largest is 31.2 or more below max.
std::vector<float> run_masses(const float* x, int64_t n, const Runs& r);

// Over the runs whose largest is further than `distance` below max. masses: of `run_masses`.
Mass mass_beyond(const std::vector<float>& masses, const Runs& r, double distance);

// Of the weights of all n tokens, given sum(exp(x - max)) as `entropy` has it.
Mass mass_of(double sum, int64_t n);

// What `mass_beyond` bounds, exactly.
uint64_t weight_beyond(const float* x, int64_t n, const Runs& r, double distance);

}  // namespace pellucid::sampling
