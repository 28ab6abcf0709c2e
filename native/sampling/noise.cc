// Keyed noise and the draw. Nothing has a state: a seed, a sample, a position and a token id give a number.
#include <algorithm>
#include <bit>
#include <limits>

#include "sampling/arithmetic.h"
#include "sampling/sampling.h"

namespace pellucid::sampling {
namespace {

constexpr uint32_t kMultiply0 = 0xD2511F53u, kMultiply1 = 0xCD9E8D57u;  // the paper's constants
constexpr uint32_t kWeyl0 = 0x9E3779B9u, kWeyl1 = 0xBB67AE85u;
constexpr int kBlocks = kRun / 4;  // Philox blocks of one run of ids
constexpr double kLog2 = 0x1.62e42fefa39efp-1;
constexpr double kLargestNoise = 22.9;  // r = 2^32 - 1 gives 22.874

double gumbel_of(uint32_t r) {
  const double u = (static_cast<double>(r) + 0.5) * 0x1p-32;
  return -log_positive(-log_positive(u));
}

// At least gumbel_of(r), without a logarithm: G <= -log(1 - u), and 1 - u = (~r + 0.5) 2^-32 > 2^(width - 33) where
// `width` is the bit width of ~r. The bound exceeds G by over 1e-10, far more than log_positive can be off.
struct Bounds {
  double of_width[33];
  constexpr Bounds() : of_width{} {
    for (int width = 0; width <= 32; ++width) of_width[width] = (33 - width) * kLog2 + 1e-9;
  }
};
constexpr Bounds kBounds;

// The words of kBlocks consecutive blocks of ids from `first_block` on: words[4 * block + word].
PELLUCID_WIDE void noise_words(const NoiseKey& key, uint32_t first_block, uint32_t* words) {
  uint32_t a[kBlocks], b[kBlocks], c[kBlocks], d[kBlocks];
  for (int i = 0; i < kBlocks; ++i) a[i] = first_block + i, b[i] = key.position, c[i] = key.sample, d[i] = key.stream;
  uint32_t k0 = static_cast<uint32_t>(key.seed), k1 = static_cast<uint32_t>(key.seed >> 32);
  for (int round = 0; round < 10; ++round) {
    for (int i = 0; i < kBlocks; ++i) {
      const uint64_t p = static_cast<uint64_t>(kMultiply0) * a[i], q = static_cast<uint64_t>(kMultiply1) * c[i];
      const uint32_t new_a = static_cast<uint32_t>(q >> 32) ^ b[i] ^ k0;
      const uint32_t new_c = static_cast<uint32_t>(p >> 32) ^ d[i] ^ k1;
      b[i] = static_cast<uint32_t>(q);
      d[i] = static_cast<uint32_t>(p);
      a[i] = new_a;
      c[i] = new_c;
    }
    k0 += kWeyl0;
    k1 += kWeyl1;
  }
  for (int i = 0; i < kBlocks; ++i)
    words[4 * i] = a[i], words[4 * i + 1] = b[i], words[4 * i + 2] = c[i], words[4 * i + 3] = d[i];
}

}  // namespace

void philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]) {
  uint32_t a = counter[0], b = counter[1], c = counter[2], d = counter[3], k0 = key[0], k1 = key[1];
  for (int round = 0; round < 10; ++round, k0 += kWeyl0, k1 += kWeyl1) {
    const uint64_t p = static_cast<uint64_t>(kMultiply0) * a, q = static_cast<uint64_t>(kMultiply1) * c;
    a = static_cast<uint32_t>(q >> 32) ^ b ^ k0;
    b = static_cast<uint32_t>(q);
    c = static_cast<uint32_t>(p >> 32) ^ d ^ k1;
    d = static_cast<uint32_t>(p);
  }
  out[0] = a, out[1] = b, out[2] = c, out[3] = d;
}

void gumbel(const NoiseKey& key, const int32_t* ids, int64_t num_ids, double* out) {
  const uint32_t k[2] = {static_cast<uint32_t>(key.seed), static_cast<uint32_t>(key.seed >> 32)};
  for (int64_t i = 0; i < num_ids; ++i) {
    const uint32_t id = static_cast<uint32_t>(ids[i]);
    const uint32_t counter[4] = {id >> 2, key.position, key.sample, key.stream};
    uint32_t words[4];
    philox(counter, k, words);
    out[i] = gumbel_of(words[id & 3]);
  }
}

int64_t gumbel_argmax(const float* x, int64_t n, const NoiseKey& key) {
  const Runs r = runs(x, n);
  if (r.all.id < 0) return -1;
  // A good first score makes the pruning sharp; whatever is skipped is strictly below the best, so ties are seen.
  int64_t best = r.all.id;
  const int32_t first = static_cast<int32_t>(best);
  double noise;
  gumbel(key, &first, 1, &noise);
  double best_score = static_cast<double>(r.all.value) + noise;
  uint32_t words[kRun];
  for (int64_t i = 0; i < static_cast<int64_t>(r.maxima.size()); ++i) {
    if (static_cast<double>(r.maxima[i]) + kLargestNoise < best_score) continue;
    noise_words(key, static_cast<uint32_t>(i * kBlocks), words);
    const int64_t start = i * kRun, count = std::min(n - start, kRun);
    for (int64_t j = 0; j < count; ++j) {
      const double z = x[start + j];
      if (z + kBounds.of_width[std::bit_width(~words[j])] < best_score) continue;
      const double score = z + gumbel_of(words[j]);
      if (score > best_score || (score == best_score && start + j < best)) best_score = score, best = start + j;
    }
  }
  return best;
}

}  // namespace pellucid::sampling
