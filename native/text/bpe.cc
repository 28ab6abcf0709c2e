// Byte-pair encoding by merge ranks, inside of the words that the pre-tokenizer cuts.
#include <algorithm>

#include "text/encoder.h"
#include "text/merging.h"
#include "text/unicode.h"

namespace pellucid::text {

namespace {

std::string byte_level(std::string_view word) {
  std::string out;
  out.reserve(2 * word.size());
  for (const char c : word) append_utf8(out, byte_to_char(static_cast<unsigned char>(c)));
  return out;
}

std::string escape_spaces(std::string_view text) {
  std::string out;
  out.reserve(text.size() + text.size() / 2);
  for (const char c : text) {
    if (c == ' ') {
      out += "\xE2\x96\x81";
    } else {
      out += c;
    }
  }
  return out;
}

int32_t whole_word(const Vocabulary& vocabulary, std::string_view word) {
  const bool newlines = vocabulary.newline_words && word.find_first_not_of('\n') == std::string_view::npos;
  if (!vocabulary.ignore_merges && !newlines) return kNone;
  if (word.size() > vocabulary.longest_piece) return kNone;
  return vocabulary.find_mergeable(vocabulary.kind == Kind::kByteLevelBpe ? byte_level(word) : std::string(word));
}

void encode_word(const Vocabulary& vocabulary, std::string_view word, std::vector<Symbol>& symbols, Encoding& out) {
  if (const int32_t id = whole_word(vocabulary, word); id != kNone) {
    out.ids.push_back(id);
    return;
  }
  const bool by_bytes = vocabulary.kind == Kind::kByteLevelBpe;
  symbols.clear();
  for (uint32_t at = 0; at < word.size();) {
    const auto left = static_cast<uint32_t>(word.size()) - at;
    const auto lead = static_cast<unsigned char>(word[at]);
    const uint32_t length = by_bytes ? 1 : std::min(utf8_length(lead), left);
    const int32_t id = by_bytes ? vocabulary.byte_ids[lead] : vocabulary.find_mergeable(word.substr(at, length));
    const auto index = static_cast<int32_t>(symbols.size());
    symbols.push_back({at, at + length, id, index - 1, left == length ? -1 : index + 1});
    at += length;
  }
  merge_symbols<int32_t>(symbols, [&](const Symbol& left, const Symbol& right, Pair<int32_t>& pair) {
    const Merge merge = vocabulary.merges.find(left.id, right.id);
    pair.rank = merge.rank;
    pair.id = merge.id;
    return merge.id != kNone;
  });
  for (int32_t i = symbols.empty() ? -1 : 0; i >= 0; i = symbols[i].next) {
    if (symbols[i].id != kNone) {
      out.ids.push_back(symbols[i].id);
    } else {
      for (uint32_t at = symbols[i].begin; at < symbols[i].end; ++at) {
        append_byte(vocabulary, static_cast<unsigned char>(word[at]), out);
      }
    }
  }
}

}  // namespace

void encode_bpe(const Vocabulary& vocabulary, std::string_view text, WordCache& cache, Encoding& out) {
  if (vocabulary.kind == Kind::kPlainBpe) text = cache.keep(escape_spaces(text));
  std::vector<Symbol> symbols;
  size_t begin = 0;
  for (const size_t end : split_words(vocabulary, text)) {
    const std::string_view word = text.substr(begin, end - begin);
    begin = end;
    if (cache.find(word, out.ids)) continue;
    const size_t first_id = out.ids.size(), lost = out.lost.size();
    encode_word(vocabulary, word, symbols, out);
    if (out.lost.size() == lost) cache.add(word, out.ids, first_id);
  }
}

}  // namespace pellucid::text
