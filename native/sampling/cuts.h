// Cuts beside top-k and top-p: by probability, by entropy, by spread. Same conventions as sampling.h.
//
// min_keep: a cut leaves at least so many (the first of the order). all_ties: what equals the last one kept stays too.
#pragma once
#include <cstdint>

namespace pellucid::sampling {

// log(sum(exp(x))) as log_normalizer gives it, and the entropy of softmax(x) in nats: log S - sum(e d) / S, where
// d = x - max, e = exp(d), in the same 8 lanes.
struct Entropy {
  double log_normalizer;
  double nats;
  double sum;  // of exp(x - max)
};
Entropy entropy(const float* x, int64_t n);

// out[i] = exp(x[i] - log_normalizer), float64; 0 where x is -inf or over 700 below.
void probabilities(const float* x, int64_t n, double* out);

// In place: keeps probability >= epsilon, 0 < epsilon <= 1.
void keep_epsilon(float* x, int64_t n, double epsilon, int64_t min_keep, bool all_ties);

// In place: keeps probability >= min(epsilon, sqrt(epsilon) exp(-entropy)) (Hewitt et al. 2022).
void keep_eta(float* x, int64_t n, double epsilon, int64_t min_keep, bool all_ties);

// In place: keeps surprise -log2(probability) <= bits.
void keep_surprise(float* x, int64_t n, double bits);

// In place: keeps x >= max - factor * standard deviation of the logits that are not -inf (Tang et al. 2024).
void keep_top_n_sigma(float* x, int64_t n, double factor);

// In place: the shortest head of the order (|surprise - entropy| ascending, id ascending) whose probability is at
// least p, 0 < p < 1 (Meister et al. 2022). Weights as in keep_top_p. n <= 2^19.
void keep_typical(float* x, int64_t n, double p, int64_t min_keep, bool all_ties);

// In place: of the tokens with probability >= threshold only the last of the order stays, unless that leaves fewer
// than min_keep. (XTC: exclude top choices.)
void exclude_top(float* x, int64_t n, double threshold, int64_t min_keep);

// In place: x = 5 - 10 d^2 / (1 + d), d = |probability - target| / 0.3; -inf stays.
void aim_at_probability(float* x, int64_t n, double target);

// exp and log of sampling/arithmetic.h for single numbers. -700 <= x <= 700; positive and normal.
double exp_of(double x);
double log_of(double x);

}  // namespace pellucid::sampling
