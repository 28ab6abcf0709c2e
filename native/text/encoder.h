// Text to token ids with a Vocabulary: special pieces first, then SPM or BPE on what lies between them.
#pragma once
#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
#include <vector>

#include "text/vocabulary.h"

namespace pellucid::text {

// A stretch [begin, end) of the text: a token, or text if id is kNone.
struct Fragment {
  size_t begin, end;
  int32_t id;
};

struct Encoding {
  std::vector<int32_t> ids;
  std::vector<unsigned char> lost;  // bytes for which the vocabulary has no token at all
};

// The words of one long text that were seen before. Direct-mapped: a new word takes the place of an old one.
class WordCache {
 public:
  explicit WordCache(bool worthwhile) : slots_(worthwhile ? kSlots : 0) {}
  // Words are views; this keeps a text that they are views of.
  std::string_view keep(std::string text) { return kept_.emplace_back(std::move(text)); }
  // True if the word was seen: its ids are appended to `out`.
  bool find(std::string_view word, std::vector<int32_t>& out) const;
  void add(std::string_view word, const std::vector<int32_t>& out, size_t first_id);

 private:
  static constexpr size_t kSlots = 8192, kLongest = 64;
  struct Slot {
    std::string_view word{};
    uint32_t first = 0, count = 0;
  };
  std::vector<Slot> slots_;
  std::deque<std::string> kept_;
  std::vector<int32_t> ids_;
};

// Cuts `text` at special pieces: control and unknown ones only if parse_special, user-defined ones always.
// The longest pieces are looked for first, all over the text; among equally long ones the leftmost.
// `forced` tokens (ascending, disjoint) are taken as they are.
std::vector<Fragment> partition(const Vocabulary& vocabulary, std::string_view text, bool parse_special,
                                const std::vector<Fragment>& forced);

// Appends the ids of text without special pieces.
void encode_spm(const Vocabulary& vocabulary, std::string_view text, bool add_prefix, WordCache& cache, Encoding& out);
void encode_bpe(const Vocabulary& vocabulary, std::string_view text, WordCache& cache, Encoding& out);

// Byte ends of the words into which the pre-tokenizer cuts the text.
std::vector<size_t> split_words(const Vocabulary& vocabulary, std::string_view text);

// Adds the token of a byte; without one the unknown token; without that the byte is noted as lost.
void append_byte(const Vocabulary& vocabulary, unsigned char byte, Encoding& out);

Encoding encode(const Vocabulary& vocabulary, std::string_view text, bool parse_special,
                const std::vector<Fragment>& forced);

}  // namespace pellucid::text
