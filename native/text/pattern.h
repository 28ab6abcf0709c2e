// The regular expressions of pre-tokenizers: a small dialect, matched in linear time and constant stack.
//
// Dialect: alternatives of sequences of: a character or class ([...], [^...], \p{..}, \P{..}, \s \S \d \D, nested
// classes, && intersection), (?:...) and (...), (?i:...), (?=...), (?!...), $ (end of the text), and the
// quantifiers ? * + {m} {m,n}, greedy or (by a further +) possessive. A group may repeat more than once only as
// the last thing of its sequence, where greedy matching never has to give back an iteration.
#pragma once
#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

namespace pellucid::text {

struct CharClass {
  uint32_t categories = 0;                              // bit set of Category
  std::vector<std::pair<uint32_t, uint32_t>> ranges{};  // inclusive
  bool space = false, han = false, not_space = false;
  uint32_t not_categories_of = 0;  // \P{..} or \D inside of a class: members are all outside of these
  bool negated = false;
  std::vector<CharClass> also{};   // nested classes: union
  std::vector<CharClass> both{};   // && intersections, applied before the negation
  bool ascii[128] = {};            // the answers below 128, after freeze()

  void freeze();
  bool holds(uint32_t c) const { return c < 128 ? ascii[c] : test(c); }
  bool test(uint32_t c) const;
};

struct Node;
using Sequence = std::vector<Node>;

struct Node {
  enum Kind : uint8_t { kClass, kGroup, kLook, kEnd } kind = kClass;
  bool negative = false, possessive = false;  // of a look-ahead; of a quantifier
  uint32_t min = 1, max = 1;
  uint32_t char_class = 0;               // kClass: index into Pattern::classes_
  std::vector<Sequence> alternatives{};  // kGroup, kLook
};

class Pattern {
 public:
  explicit Pattern(std::string_view source);  // throws std::invalid_argument

  // Splits text[begin, end): appends the end of every piece (matches, and what lies between them) to `ends`.
  void split(const uint32_t* text, size_t begin, size_t end, std::vector<size_t>& ends) const;

 private:
  friend class PatternParser;
  friend class Matcher;
  std::vector<Sequence> alternatives_;
  std::vector<CharClass> classes_;
};

}  // namespace pellucid::text
