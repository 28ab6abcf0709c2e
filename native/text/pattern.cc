#include "text/pattern.h"

#include <algorithm>

#include "text/unicode.h"

namespace pellucid::text {

bool CharClass::test(uint32_t c) const {
  const uint32_t own = 1u << category(c);
  bool in = (categories & own) || (space && is_space(c)) || (han && is_han(c)) || (not_space && !is_space(c)) ||
            (not_categories_of && !(not_categories_of & own));
  for (const auto& [first, last] : ranges) in = in || (c >= first && c <= last);
  for (const CharClass& other : also) in = in || other.test(c);
  for (const CharClass& other : both) in = in && other.test(c);
  return in != negated;
}

void CharClass::freeze() {
  for (uint32_t c = 0; c < 128; ++c) ascii[c] = test(c);
}

namespace {
constexpr size_t kNoMatch = static_cast<size_t>(-1);
}

// Backtracking only within one sequence, over the lengths of its class runs: recursion is as deep as the pattern
// is long. A run that failed once is remembered, so a long run is not walked again from each of its characters.
class Matcher {
 public:
  Matcher(const Pattern& pattern, const uint32_t* text, size_t end)
      : pattern_(pattern), text_(text), end_(end), failed_(pattern.alternatives_.size()) {}

  size_t match(size_t pos) {
    for (size_t i = 0; i < pattern_.alternatives_.size(); ++i) {
      const Sequence& sequence = pattern_.alternatives_[i];
      const bool has_run = sequence[0].kind == Node::kClass && sequence[0].max == UINT32_MAX;
      if (has_run && pos >= failed_[i].first && pos < failed_[i].second) continue;
      const size_t stop = step(sequence, 0, pos);
      if (stop != kNoMatch && stop > pos) return stop;
      if (has_run) failed_[i] = {pos, pos + run(sequence[0], pos)};
    }
    return kNoMatch;
  }

 private:
  size_t run(const Node& node, size_t pos) const {
    const CharClass& members = pattern_.classes_[node.char_class];
    const size_t stop = end_ - pos < node.max ? end_ : pos + node.max;
    size_t at = pos;
    while (at < stop && members.holds(text_[at])) ++at;
    return at - pos;
  }

  // The end of sequence[index..] matched at pos.
  size_t step(const Sequence& sequence, size_t index, size_t pos) const {
    if (index == sequence.size()) return pos;
    const Node& node = sequence[index];
    switch (node.kind) {
      case Node::kEnd:
        return pos == end_ ? step(sequence, index + 1, pos) : kNoMatch;
      case Node::kLook:
        return (any(node.alternatives, pos) != kNoMatch) != node.negative ? step(sequence, index + 1, pos) : kNoMatch;
      case Node::kClass: {
        const size_t most = run(node, pos);
        if (most < node.min) return kNoMatch;
        if (index + 1 == sequence.size()) return pos + most;
        const size_t least = node.possessive ? most : node.min;
        for (size_t n = most + 1; n-- > least;) {
          const size_t stop = step(sequence, index + 1, pos + n);
          if (stop != kNoMatch) return stop;
        }
        return kNoMatch;
      }
      case Node::kGroup:
        return group(sequence, index, pos);
    }
    return kNoMatch;
  }

  size_t any(const std::vector<Sequence>& alternatives, size_t pos) const {
    for (const Sequence& sequence : alternatives) {
      const size_t stop = step(sequence, 0, pos);
      if (stop != kNoMatch) return stop;
    }
    return kNoMatch;
  }

  size_t group(const Sequence& sequence, size_t index, size_t pos) const {
    const Node& node = sequence[index];
    if (node.max == 1) {
      for (const Sequence& inner : node.alternatives) {
        const size_t middle = step(inner, 0, pos);
        if (middle == kNoMatch) continue;
        const size_t stop = step(sequence, index + 1, middle);
        if (stop != kNoMatch) return stop;
      }
      return node.min == 0 ? step(sequence, index + 1, pos) : kNoMatch;
    }
    uint32_t times = 0;  // the last node of its sequence (the parser sees to it)
    for (; times < node.max; ++times) {
      const size_t stop = any(node.alternatives, pos);
      if (stop == kNoMatch || stop == pos) break;
      pos = stop;
    }
    return times >= node.min ? pos : kNoMatch;
  }

  const Pattern& pattern_;
  const uint32_t* text_;
  size_t end_;
  std::vector<std::pair<size_t, size_t>> failed_;  // of each alternative: starts that are known to fail
};

void Pattern::split(const uint32_t* text, size_t begin, size_t end, std::vector<size_t>& ends) const {
  Matcher matcher(*this, text, end);
  size_t open = begin;  // start of what no match has taken yet
  for (size_t pos = begin; pos < end;) {
    const size_t stop = matcher.match(pos);
    if (stop == kNoMatch) {
      ++pos;
      continue;
    }
    if (open < pos) ends.push_back(pos);
    ends.push_back(stop);
    open = pos = stop;
  }
  if (open < end) ends.push_back(end);
}

}  // namespace pellucid::text
