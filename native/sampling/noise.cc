// Keyed noise and the draw. Nothing has a state: a seed, a sample, a position and a token id give a number.
#include <algorithm>
#include <bit>
#include <limits>

#include "sampling/arithmetic.h"
#include "sampling/noise.h"

namespace pellucid::sampling {
namespace {

constexpr uint32_t kMultiply0 = 0xD2511F53u, kMultiply1 = 0xCD9E8D57u;  // the paper's constants
constexpr uint32_t kWeyl0 = 0x9E3779B9u, kWeyl1 = 0xBB67AE85u;
constexpr int kBlocks = kRun / 4;  // Philox blocks of one run of ids

// One Philox4x32-10 block.
struct Words {
  uint32_t a, b, c, d;
};
[[gnu::always_inline]] inline Words philox_block(Words x, uint32_t k0, uint32_t k1) {
#pragma GCC unroll 10
  for (int round = 0; round < 10; ++round) {
    const uint64_t p = static_cast<uint64_t>(kMultiply0) * x.a, q = static_cast<uint64_t>(kMultiply1) * x.c;
    x = {static_cast<uint32_t>(q >> 32) ^ x.b ^ k0, static_cast<uint32_t>(q),
         static_cast<uint32_t>(p >> 32) ^ x.d ^ k1, static_cast<uint32_t>(p)};
    k0 += kWeyl0;
    k1 += kWeyl1;
  }
  return x;
}

}  // namespace

PELLUCID_WIDE uint32_t noise_words(const NoiseKey& key, uint32_t first_block, uint32_t* __restrict words) {
  const uint32_t k0 = static_cast<uint32_t>(key.seed), k1 = static_cast<uint32_t>(key.seed >> 32);
  const uint32_t position = key.position, sample = key.sample, stream = key.stream;
  for (int i = 0; i < kBlocks; ++i) {
    const Words x = philox_block({first_block + i, position, sample, stream}, k0, k1);
    words[i] = x.a;
    words[kBlocks + i] = x.b;
    words[2 * kBlocks + i] = x.c;
    words[3 * kBlocks + i] = x.d;
  }
  uint32_t largest = 0;
  for (int i = 0; i < kRun; ++i) largest = words[i] > largest ? words[i] : largest;
  return largest;
}

uint32_t least_word(double least) {
  if (least <= 0.0) return 0;
  const double bound = exp_negative(-least) * 0x1p32 + 1.0;
  return bound < 0x1p32 ? ~static_cast<uint32_t>(bound) : 0;
}

void philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]) {
  const Words x = philox_block({counter[0], counter[1], counter[2], counter[3]}, key[0], key[1]);
  out[0] = x.a, out[1] = x.b, out[2] = x.c, out[3] = x.d;
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
    const double needed = best_score - static_cast<double>(r.maxima[i]);
    if (needed > kLargestNoise) continue;
    if (noise_words(key, static_cast<uint32_t>(i * kBlocks), words) < least_word(needed)) continue;
    const int64_t start = i * kRun, count = std::min(n - start, kRun);
    for (int64_t j = 0; j < count; ++j) {
      const double z = x[start + j];
      const uint32_t word = words[(j & 3) * kBlocks + (j >> 2)];
      if (z + noise_bound(word) < best_score) continue;
      const double score = z + gumbel_of(word);
      if (score > best_score || (score == best_score && start + j < best)) best_score = score, best = start + j;
    }
  }
  return best;
}

}  // namespace pellucid::sampling
