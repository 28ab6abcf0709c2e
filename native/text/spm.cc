// SentencePiece BPE as GGUF vocabularies have it: the pair that makes the piece with the highest score merges first;
// characters that end up in no piece become byte tokens.
#include <algorithm>

#include "text/encoder.h"
#include "text/merging.h"
#include "text/unicode.h"

namespace pellucid::text {

namespace {

constexpr std::string_view kSpace = "\xE2\x96\x81";  // U+2581 stands for a space

std::string escape_spaces(std::string_view text, bool add_prefix) {
  std::string out;
  out.reserve(text.size() + text.size() / 2 + 3);
  if (add_prefix) out += kSpace;
  for (const char c : text) {
    if (c == ' ') {
      out += kSpace;
    } else {
      out += c;
    }
  }
  return out;
}

void encode_segment(const Vocabulary& vocabulary, std::string_view segment, std::vector<Symbol>& symbols, Encoding& out) {
  symbols.clear();
  for (uint32_t at = 0; at < segment.size();) {
    const auto left = static_cast<uint32_t>(segment.size()) - at;
    const uint32_t length = std::min(utf8_length(static_cast<unsigned char>(segment[at])), left);
    const auto index = static_cast<int32_t>(symbols.size());
    symbols.push_back({at, at + length, kNone, index - 1, left == length ? -1 : index + 1});
    at += length;
  }
  merge_symbols<float>(symbols, [&](const Symbol& left, const Symbol& right, Pair<float>& pair) {
    pair.id = vocabulary.find_mergeable(segment.substr(left.begin, right.end - left.begin));
    if (pair.id == kNone) return false;
    pair.rank = -vocabulary.scores[pair.id];
    return true;
  });
  for (int32_t i = symbols.empty() ? -1 : 0; i >= 0; i = symbols[i].next) {
    const std::string_view piece = segment.substr(symbols[i].begin, symbols[i].end - symbols[i].begin);
    const int32_t id = symbols[i].id != kNone ? symbols[i].id : vocabulary.find_mergeable(piece);
    if (id != kNone) {
      out.ids.push_back(id);
    } else {
      for (const char c : piece) append_byte(vocabulary, static_cast<unsigned char>(c), out);
    }
  }
}

}  // namespace

// No merge crosses a place that no piece spans. So the text may be cut before each escaped space whose
// predecessor precedes an escaped space in no piece: the same ids, word by word.
void encode_spm(const Vocabulary& vocabulary, std::string_view text, bool add_prefix, WordCache& cache, Encoding& out) {
  const std::string_view escaped = cache.keep(escape_spaces(text, add_prefix));
  std::vector<Symbol> symbols;
  const auto emit = [&](std::string_view segment) {
    if (segment.empty() || cache.find(segment, out.ids)) return;
    const size_t first_id = out.ids.size(), lost = out.lost.size();
    encode_segment(vocabulary, segment, symbols, out);
    if (out.lost.size() == lost) cache.add(segment, out.ids, first_id);
  };
  size_t begin = 0;
  uint32_t previous = 0;
  for (size_t at = 0; at < escaped.size();) {
    const size_t here = at;
    const uint32_t c = next_code_point(escaped, at);
    if (c == 0x2581 && here > begin && !vocabulary.joins_space(previous)) {
      emit(escaped.substr(begin, here - begin));
      begin = here;
    }
    previous = c;
  }
  emit(escaped.substr(begin));
}

}  // namespace pellucid::text
