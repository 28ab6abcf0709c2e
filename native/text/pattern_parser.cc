// Reads the dialect of pattern.h. The sources are our own table (text/pretokenizers.py), never a model file.
#include <stdexcept>
#include <string>

#include "text/pattern.h"
#include "text/unicode.h"

namespace pellucid::text {

class PatternParser {
 public:
  PatternParser(Pattern& pattern, std::string_view source) : pattern_(pattern), source_(source) {}

  void parse() {
    pattern_.alternatives_ = alternatives();
    if (!done()) fail("unbalanced ')'");
    for (const Sequence& sequence : pattern_.alternatives_) {
      if (sequence.empty()) fail("an alternative is empty");
    }
  }

 private:
  [[noreturn]] void fail(const std::string& why) const {
    throw std::invalid_argument("pattern at byte " + std::to_string(pos_) + ": " + why);
  }
  bool done() const { return pos_ >= source_.size(); }
  char peek() const { return done() ? '\0' : source_[pos_]; }
  bool take(std::string_view token) {
    if (source_.substr(pos_, token.size()) != token) return false;
    pos_ += token.size();
    return true;
  }
  void expect(std::string_view token) {
    if (!take(token)) fail("expected '" + std::string(token) + "'");
  }

  std::vector<Sequence> alternatives() {
    std::vector<Sequence> out{sequence()};
    while (take("|")) out.push_back(sequence());
    return out;
  }

  Sequence sequence() {
    Sequence out;
    while (!done() && peek() != '|' && peek() != ')') {
      if (!out.empty() && out.back().kind == Node::kGroup && out.back().max > 1) fail("a repeated group must be last");
      out.push_back(atom());
      quantifier(out.back());
    }
    return out;
  }

  Node atom() {
    Node node;
    if (take("$")) {
      node.kind = Node::kEnd;
    } else if (take("(")) {
      node.kind = Node::kGroup;
      const bool outer = ignore_case_;
      if (take("?=") || take("?!")) {
        node.kind = Node::kLook;
        node.negative = source_[pos_ - 1] == '!';
      } else if (take("?i:")) {
        ignore_case_ = true;
      } else if (!take("?:") && peek() == '?') {
        fail("unknown group");
      }
      node.alternatives = alternatives();
      expect(")");
      ignore_case_ = outer;
    } else {
      node.char_class = add(take("[") ? brackets() : single());
    }
    return node;
  }

  void quantifier(Node& node) {
    if (take("?")) {
      node.min = 0;
    } else if (take("*")) {
      node.min = 0, node.max = UINT32_MAX;
    } else if (take("+")) {
      node.max = UINT32_MAX;
    } else if (take("{")) {
      node.min = node.max = number();
      if (take(",")) node.max = number();
      expect("}");
    } else {
      return;
    }
    node.possessive = take("+");
  }

  uint32_t number() {
    uint32_t value = 0;
    if (peek() < '0' || peek() > '9') fail("expected a number");
    while (peek() >= '0' && peek() <= '9') value = value * 10 + static_cast<uint32_t>(source_[pos_++] - '0');
    return value;
  }

  uint32_t add(CharClass members) {
    members.freeze();
    pattern_.classes_.push_back(std::move(members));
    return static_cast<uint32_t>(pattern_.classes_.size() - 1);
  }

  CharClass single() {
    CharClass members;
    if (take(".")) fail("'.' is not in the dialect");
    if (!property(members)) literal(members, character());
    return members;
  }

  void literal(CharClass& members, uint32_t c) const {
    members.ranges.emplace_back(c, c);
    if (!ignore_case_ || c >= 128) return;
    const uint32_t lower = c | 0x20;
    if (lower < 'a' || lower > 'z') return;
    members.ranges.emplace_back(lower, lower);
    members.ranges.emplace_back(lower - 32, lower - 32);
    if (lower == 's') members.ranges.emplace_back(0x17F, 0x17F);    // LATIN SMALL LETTER LONG S folds to s
    if (lower == 'k') members.ranges.emplace_back(0x212A, 0x212A);  // KELVIN SIGN folds to k
  }

  uint32_t character() {
    if (done()) fail("expected a character");
    if (take("\\")) {
      const char c = peek();
      ++pos_;
      if (c == 'r') return '\r';
      if (c == 'n') return '\n';
      if (c == 't') return '\t';
      if ((c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')) fail("unknown escape");
      return static_cast<unsigned char>(c);
    }
    return next_code_point(source_, pos_);
  }

  // \p{..} \P{..} \s \S \d \D, added to the class.
  bool property(CharClass& members) {
    if (take("\\s")) return members.space = true;
    if (take("\\S")) return members.not_space = true;
    if (take("\\d")) return members.categories |= bit(Nd);
    if (take("\\D")) return members.not_categories_of |= bit(Nd);
    const bool positive = take("\\p{");
    if (!positive && !take("\\P{")) return false;
    const size_t close = source_.find('}', pos_);
    const std::string_view name = source_.substr(pos_, close - pos_);
    pos_ = close + 1;
    if (positive && name == "Han") return members.han = true;
    return (positive ? members.categories : members.not_categories_of) |= mask(name);
  }

  uint32_t mask(std::string_view name) const {
    if (name == "L") return kLetter;
    if (name == "M") return kMark;
    if (name == "N") return kNumber;
    if (name == "P") return kPunctuation;
    if (name == "S") return kSymbol;
    if (name == "Lu") return bit(Lu);
    if (name == "Ll") return bit(Ll);
    if (name == "Lt") return bit(Lt);
    if (name == "Lm") return bit(Lm);
    if (name == "Lo") return bit(Lo);
    fail("unknown property " + std::string(name));
  }

  CharClass brackets() {  // after '['
    CharClass members;
    members.negated = take("^");
    bool first = true;
    while (first || peek() != ']') {
      if (done()) fail("'[' is not closed");
      first = false;
      if (take("&&")) {
        expect("[");
        members.both.push_back(brackets());
      } else if (take("[")) {
        members.also.push_back(brackets());
      } else if (!property(members)) {
        const uint32_t low = character();
        if (peek() == '-' && source_.substr(pos_, 2) != "-]") {
          ++pos_;
          members.ranges.emplace_back(low, character());
        } else {
          literal(members, low);
        }
      }
    }
    expect("]");
    return members;
  }

  Pattern& pattern_;
  std::string_view source_;
  size_t pos_ = 0;
  bool ignore_case_ = false;
};

Pattern::Pattern(std::string_view source) { PatternParser(*this, source).parse(); }

}  // namespace pellucid::text
