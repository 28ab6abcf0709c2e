// Penalties for what has occurred, in time linear in the history. ids: int32 [num_ids], all in [0, n).
#pragma once
#include <cstdint>

namespace pellucid::sampling {

// For each id that occurs in ids[0, num_ids): x / repetition where x > 0, else x * repetition. Then, with its count c
// in ids[counted_from, num_ids), c > 0: x -= frequency * c + presence. float32 arithmetic, in this order.
struct Penalties {
  float repetition, presence, frequency;
};
void penalize(float* x, int64_t n, const int32_t* ids, int64_t num_ids, int64_t counted_from, const Penalties& by);

// Don't-repeat-yourself: lengths[i] = how many tokens before (and not at) position i + 1 equal the last tokens of ids,
// at most `longest`: the longest common suffix of ids[0..i] and ids, by the Z algorithm on the reversed ids (Gusfield
// 1997). i < num_ids - 1.
void suffix_matches(const int32_t* ids, int64_t num_ids, int64_t longest, int32_t* lengths);

// In place: for each id t that followed a match of length m >= allowed (the longest such): x[t] -= multiplier *
// base^(m - allowed). `longest` as above. The power is one multiplication after another in float64, at most 1e30.
void penalize_repeats(float* x, int64_t n, const int32_t* ids, int64_t num_ids, int64_t longest, int64_t allowed,
                      double multiplier, double base, const int32_t* spared, int64_t num_spared);

}  // namespace pellucid::sampling
