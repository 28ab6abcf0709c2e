// The pre-tokenizer: stages of patterns, each applied to the pieces of the one before.
#include <stdexcept>

#include "text/encoder.h"
#include "text/unicode.h"

namespace pellucid::text {

namespace {

// Ends of the pieces of text[begin, end) for a rule on runs of digits: counted from the right of the run in
// groups of three ("12345" -> "12" "345").
struct DigitRule {
  uint32_t categories;    // which digits
  bool needs_boundary;    // only runs that no word character follows
};

DigitRule digit_rule(const std::string& name) {
  if (name == "@numbers-by-thousands") return {kNumber, false};
  if (name == "@digits-by-thousands") return {bit(Nd), false};
  if (name == "@digits-by-thousands-at-boundary") return {bit(Nd), true};
  throw std::invalid_argument("unknown digit rule " + name);
}

void split_digits(const DigitRule& rule, const uint32_t* text, size_t begin, size_t end, std::vector<size_t>& ends) {
  const auto holds = [&](size_t i) { return rule.categories >> category(text[i]) & 1; };
  size_t open = begin;  // start of what the rule has not cut off yet
  for (size_t at = begin; at < end;) {
    if (!holds(at)) {
      ++at;
      continue;
    }
    const size_t first = at;
    while (at < end && holds(at)) ++at;
    if (rule.needs_boundary && at < end && is_word(text[at])) continue;
    if (first > open) ends.push_back(first);
    const size_t head = (at - first) % 3;
    if (head) ends.push_back(first + head);
    for (size_t stop = first + head + 3; stop <= at; stop += 3) ends.push_back(stop);
    open = at;
  }
  if (open < end) ends.push_back(end);
}

}  // namespace

std::vector<size_t> split_words(const Vocabulary& vocabulary, std::string_view text) {
  std::vector<uint32_t> code_points;
  code_points.reserve(text.size());
  for (size_t at = 0; at < text.size();) code_points.push_back(next_code_point(text, at));
  std::vector<size_t> ends{code_points.size()}, finer;
  for (size_t i = 0; i < vocabulary.stages.size(); ++i) {
    finer.clear();
    size_t begin = 0;
    for (const size_t end : ends) {
      if (vocabulary.stages[i].empty()) {
        vocabulary.patterns[i].split(code_points.data(), begin, end, finer);
      } else {
        split_digits(digit_rule(vocabulary.stages[i]), code_points.data(), begin, end, finer);
      }
      begin = end;
    }
    ends.swap(finer);
  }
  size_t byte = 0, i = 0;  // from code points to bytes
  for (size_t& end : ends) {
    for (; i < end; ++i) {
      const uint32_t c = code_points[i];
      byte += c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : c < kStrayByte ? 4 : 1;
    }
    end = byte;
  }
  if (text.empty()) ends.clear();
  return ends;
}

}  // namespace pellucid::text
