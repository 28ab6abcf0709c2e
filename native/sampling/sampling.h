// Choosing the next token: the parts of it that touch a whole vocabulary. Knows no Python, no threads, no model.
//
// x: logits, float32 [n]. -inf means excluded; NaN and +inf are refused with std::domain_error.
// Order everywhere: logit descending, then id ascending. Compiled without contraction; every function has a
// NumPy twin (src/pellucid/sampling/random.py and tests/unit/sampling) that is held equal bit for bit.
#pragma once
#include <algorithm>
#include <cstdint>
#include <limits>
#include <vector>

namespace pellucid::sampling {

struct Maximum {
  float value;
  int64_t id;  // the lowest id that has it; -1 if every logit is -inf (or n is 0)
};

// The largest logit of each run of 64, and of all: what lets the functions below skip most of a vocabulary.
inline constexpr int64_t kRun = 64;
struct Runs {
  std::vector<float> maxima;  // [ceil(n / 64)]
  Maximum all;
};
Runs runs(const float* x, int64_t n);

// Run number `run`: where it lies, or, if x ends in the midst of it, in `padded` [kRun], filled up with -inf.
inline const float* whole_run(const float* x, int64_t n, int64_t run, float* padded) {
  const float* start = x + run * kRun;
  if ((run + 1) * kRun <= n) return start;
  std::fill(std::copy(start, x + n, padded), padded + kRun, -std::numeric_limits<float>::infinity());
  return padded;
}

Maximum maximum(const float* x, int64_t n);

// log(sum(exp(x))) in float64: 8 lanes, ascending, one fixed tree. Terms below exp(max - 50) count as zero: all of
// 2^18 of them together are under half an ulp of the sum. -inf if every logit is -inf.
double log_normalizer(const float* x, int64_t n);

// The ids of the k largest, in order. 0 <= k <= n.
void top_k(const float* x, int64_t n, int64_t k, int32_t* ids);

// In place: all but the k largest become -inf; all_ties: what equals the k-th stays too.
void keep_top_k(float* x, int64_t n, int64_t k, bool all_ties);

// In place: keeps the shortest head of the order whose probability is at least p (0 < p <= 1), never fewer than
// min_keep. A probability is counted in whole units of 2^-44 of the largest, so its sums are exact in any order.
// n <= 2^19.
void keep_top_p(float* x, int64_t n, double p, int64_t min_keep);

// In place: keeps x - max >= log(p), so the probability is at least p times the largest, 0 < p <= 1; and the first
// min_keep of the order.
void keep_min_p(float* x, int64_t n, double p, int64_t min_keep);

// In place: keeps x - reference >= least; and the first min_keep of the order, at least one (all_ties: with all that
// equal the last of them).
void keep_at_least(float* x, int64_t n, double reference, double least, int64_t min_keep, bool all_ties);

// Philox4x32-10 (Salmon, Moraes, Dror, Shaw 2011): counter[4], key[2] -> out[4].
void philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]);

// What noise is a function of. The counter is (id / 4, position, sample, stream); the id takes word id % 4.
struct NoiseKey {
  uint64_t seed;
  uint32_t sample;
  uint32_t position;
  uint32_t stream;
};

// Standard Gumbel noise of each id: -log(-log((r + 0.5) * 2^-32)), float64, in [-3.13, 22.88].
void gumbel(const NoiseKey& key, const int32_t* ids, int64_t num_ids, double* out);

// argmax of x + gumbel (float64), ties to the lowest id: one draw of softmax(x). -1 if every logit is -inf.
int64_t gumbel_argmax(const float* x, int64_t n, const NoiseKey& key);

}  // namespace pellucid::sampling
