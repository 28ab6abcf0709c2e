#include "sampling/repeats.h"

#include <algorithm>
#include <utility>
#include <vector>

namespace pellucid::sampling {

void penalize(float* x, int64_t n, const int32_t* ids, int64_t num_ids, int64_t counted_from, const Penalties& by) {
  // 1 + how often an id counts; 0 for what has not occurred. All zero between two calls.
  static thread_local std::vector<int32_t> marks;
  if (static_cast<int64_t>(marks.size()) < n) marks.resize(n);
  const auto known = [&](int64_t i) { return ids[i] >= 0 && ids[i] < n; };
  for (int64_t i = 0; i < num_ids; ++i)
    if (known(i)) marks[ids[i]] = std::max(marks[ids[i]], 1) + (i >= counted_from);
  for (int64_t i = 0; i < num_ids; ++i) {
    if (!known(i) || marks[ids[i]] == 0) continue;
    const int32_t count = marks[ids[i]] - 1;
    marks[ids[i]] = 0;
    float value = x[ids[i]];
    if (by.repetition != 1.0f) value = value > 0.0f ? value / by.repetition : value * by.repetition;
    if (count > 0) {
      const float penalty = by.frequency * static_cast<float>(count);
      value -= penalty + by.presence;
    }
    x[ids[i]] = value;
  }
}

void suffix_matches(const int32_t* ids, int64_t num_ids, int64_t longest, int32_t* lengths) {
  const auto from_end = [&](int64_t i) { return ids[num_ids - 1 - i]; };
  std::vector<int64_t> z(num_ids);  // z[k]: common prefix of the reversed ids and of their part from k on
  int64_t left = 0, right = 0;      // the match that reaches furthest: [left, right)
  for (int64_t k = 1; k < num_ids; ++k) {
    int64_t length = k < right ? std::min(right - k, z[k - left]) : 0;
    while (k + length < num_ids && from_end(length) == from_end(k + length)) ++length;
    z[k] = length;
    if (k + length > right) left = k, right = k + length;
    lengths[num_ids - 1 - k] = static_cast<int32_t>(std::min(length, longest));
  }
}

void penalize_repeats(float* x, int64_t n, const int32_t* ids, int64_t num_ids, int64_t longest, int64_t allowed,
                      double multiplier, double base, const int32_t* spared, int64_t num_spared) {
  if (num_ids < 2) return;
  std::vector<int32_t> lengths(num_ids);
  suffix_matches(ids, num_ids, longest, lengths.data());
  std::vector<std::pair<int32_t, int32_t>> followers;  // (id, -length): the longest of each id comes first
  for (int64_t i = 0; i < num_ids - 1; ++i)
    if (lengths[i] >= allowed) followers.emplace_back(ids[i + 1], -lengths[i]);
  std::sort(followers.begin(), followers.end());
  int32_t last = -1;
  for (const auto& [id, negative] : followers) {
    if (id == last || id < 0 || id >= n) continue;
    last = id;
    if (std::binary_search(spared, spared + num_spared, id)) continue;
    double penalty = multiplier;
    for (int64_t i = -static_cast<int64_t>(negative) - allowed; i > 0 && penalty < 1e30; --i) penalty *= base;
    x[id] = static_cast<float>(static_cast<double>(x[id]) - std::min(penalty, 1e30));
  }
}

}  // namespace pellucid::sampling
