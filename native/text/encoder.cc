#include "text/encoder.h"

#include <algorithm>
#include <stdexcept>

namespace pellucid::text {

bool WordCache::find(std::string_view word, std::vector<int32_t>& out) const {
  if (slots_.empty() || word.size() > kLongest) return false;
  const Slot& slot = slots_[hash_bytes(word) % kSlots];
  if (slot.word != word) return false;
  out.insert(out.end(), ids_.begin() + slot.first, ids_.begin() + slot.first + slot.count);
  return true;
}

void WordCache::add(std::string_view word, const std::vector<int32_t>& out, size_t first_id) {
  if (slots_.empty() || word.size() > kLongest) return;
  const auto first = static_cast<uint32_t>(ids_.size());
  ids_.insert(ids_.end(), out.begin() + static_cast<std::ptrdiff_t>(first_id), out.end());
  slots_[hash_bytes(word) % kSlots] = {word, first, static_cast<uint32_t>(out.size() - first_id)};
}

void append_byte(const Vocabulary& vocabulary, unsigned char byte, Encoding& out) {
  const int32_t id = vocabulary.byte_ids[byte];
  if (id != kNone) {
    out.ids.push_back(id);
  } else if (vocabulary.unknown_id != kNone) {
    out.ids.push_back(vocabulary.unknown_id);
  } else {
    out.lost.push_back(byte);
  }
}

namespace {

bool ascii_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

// Takes occurrences of specials of one length out of the text fragments; see partition().
class Cutter {
 public:
  Cutter(const Vocabulary& vocabulary, std::string_view text, bool parse_special)
      : vocabulary_(vocabulary), text_(text), parse_special_(parse_special) {}

  void cut(std::vector<Fragment>& fragments) {
    for (size_t i = 0; i < vocabulary_.specials.size();) {
      const size_t length = vocabulary_.piece(vocabulary_.specials[i]).size();
      bool wanted = false;
      for (; i < vocabulary_.specials.size() && vocabulary_.piece(vocabulary_.specials[i]).size() == length; ++i) {
        wanted = wanted || allowed(vocabulary_.specials[i]);
      }
      if (wanted) cut_length(fragments, length);
    }
  }

  // Where a special piece may begin, by its first bytes; nothing else is ever looked up.
  bool find_candidates(const std::vector<Fragment>& fragments) {
    for (const Fragment& fragment : fragments) {
      if (fragment.id != kNone) continue;
      for (size_t at = fragment.begin; at < fragment.end; ++at) {
        const auto first = static_cast<unsigned char>(text_[at]);
        const uint32_t two = first << 8 | (at + 1 < fragment.end ? static_cast<unsigned char>(text_[at + 1]) : 0);
        if ((vocabulary_.special_starts[two / 64] >> two % 64 & 1) || vocabulary_.special_of_one_byte[first]) {
          candidates_.push_back(static_cast<uint32_t>(at));
        }
      }
    }
    return !candidates_.empty();
  }

 private:
  bool allowed(int32_t id) const {
    const TokenType type = vocabulary_.type(id);
    return type == kUserDefined || (parse_special_ && (type == kControl || type == kUnknown));
  }

  void cut_length(std::vector<Fragment>& fragments, size_t length) {
    std::vector<Fragment> out;
    size_t next = 0;  // into candidates_
    bool found = false;
    for (const Fragment& fragment : fragments) {
      if (fragment.id != kNone || fragment.end - fragment.begin < length) {
        out.push_back(fragment);
        continue;
      }
      size_t open = fragment.begin;
      while (next < candidates_.size() && candidates_[next] < open) ++next;
      for (; next < candidates_.size() && candidates_[next] + length <= fragment.end; ++next) {
        const size_t at = candidates_[next];
        if (at < open) continue;
        const int32_t id = vocabulary_.find(text_.substr(at, length));
        if (id == kNone || !allowed(id)) continue;
        found = true;
        open = take(out, fragment, open, at, id);
      }
      if (open < fragment.end) out.push_back({open, fragment.end, kNone});
    }
    if (found) fragments = std::move(out);
  }

  // Adds the text before a special piece and the piece; returns where the text goes on.
  size_t take(std::vector<Fragment>& out, const Fragment& fragment, size_t open, size_t at, int32_t id) const {
    const size_t stop = at + vocabulary_.piece(id).size();
    size_t left = at, right = stop;
    if (vocabulary_.flags(id) & kStripLeft) {
      while (left > open && ascii_space(text_[left - 1])) --left;
    }
    if (vocabulary_.flags(id) & kStripRight) {
      while (right < fragment.end && ascii_space(text_[right])) ++right;
    }
    if (left > open) out.push_back({open, left, kNone});
    out.push_back({at, stop, id});
    return right;
  }

  const Vocabulary& vocabulary_;
  std::string_view text_;
  bool parse_special_;
  std::vector<uint32_t> candidates_;
};

}  // namespace

std::vector<Fragment> partition(const Vocabulary& vocabulary, std::string_view text, bool parse_special,
                                const std::vector<Fragment>& forced) {
  std::vector<Fragment> fragments;
  size_t open = 0;
  for (const Fragment& token : forced) {
    size_t left = token.begin;
    if (vocabulary.flags(token.id) & kStripLeft) {
      while (left > open && ascii_space(text[left - 1])) --left;
    }
    if (left > open) fragments.push_back({open, left, kNone});
    fragments.push_back(token);
    open = token.end;
    if (vocabulary.flags(token.id) & kStripRight) {
      while (open < text.size() && ascii_space(text[open])) ++open;
    }
  }
  if (open < text.size()) fragments.push_back({open, text.size(), kNone});
  Cutter cutter(vocabulary, text, parse_special);
  if (cutter.find_candidates(fragments)) cutter.cut(fragments);
  return fragments;
}

Encoding encode(const Vocabulary& vocabulary, std::string_view text, bool parse_special,
                const std::vector<Fragment>& forced) {
  if (text.size() >= INT32_MAX / 4) throw std::invalid_argument("the text has more than 512 MiB");
  Encoding out;
  WordCache cache(text.size() > 4096);
  bool after_special = true;
  for (const Fragment& fragment : partition(vocabulary, text, parse_special, forced)) {
    if (fragment.id != kNone) {
      out.ids.push_back(fragment.id);
      after_special = true;
      continue;
    }
    const std::string_view part = text.substr(fragment.begin, fragment.end - fragment.begin);
    if (vocabulary.kind == Kind::kSpm) {
      encode_spm(vocabulary, part, vocabulary.add_space_prefix && after_special, cache, out);
    } else {
      encode_bpe(vocabulary, part, cache, out);
    }
    after_special = false;
  }
  return out;
}

}  // namespace pellucid::text
