// The words of keyed noise for a run of ids, and what they say of the noise without a logarithm: for choices that skip most
// of a vocabulary.
#pragma once
#include <bit>

#include "sampling/arithmetic.h"
#include "sampling/sampling.h"

namespace pellucid::sampling {

inline constexpr double kLargestNoise = 22.9;  // r = 2^32 - 1 gives 22.874: what needs more can be skipped

inline double gumbel_of(uint32_t r) {
  const double u = (static_cast<double>(r) + 0.5) * 0x1p-32;
  return -log_positive(-log_positive(u));
}

// At least gumbel_of(r), without a logarithm: G <= -log(1 - u), and 1 - u = (~r + 0.5) 2^-32 > 2^(width - 33) where
// `width` is the bit width of ~r. The bound exceeds G by over 1e-10, far more than log_positive can be off.
struct NoiseBounds {
  double of_width[33];
  constexpr NoiseBounds() : of_width{} {
    for (int width = 0; width <= 32; ++width) of_width[width] = (33 - width) * 0x1.62e42fefa39efp-1 + 1e-9;  // log(2)
  }
};
inline constexpr NoiseBounds kNoiseBounds;
inline double noise_bound(uint32_t r) { return kNoiseBounds.of_width[std::bit_width(~r)]; }

// The words of kRun consecutive ids, of which the first is 4 * first_block: that of id i of the run at
// words[(i % 4) * kRun / 4 + i / 4]. -> the largest.
uint32_t noise_words(const NoiseKey& key, uint32_t first_block, uint32_t* words);

// No r below this has noise of `least` or more: G <= -log(1 - u) and 1 - u > ~r 2^-32, so ~r < exp(-least) 2^32. (One
// more is let through, for the rounding.) least <= kLargestNoise.
uint32_t least_word(double least);

}  // namespace pellucid::sampling
