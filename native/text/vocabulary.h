// The pieces of a vocabulary, read in place from a GGUF string array, and the tables that encoding needs.
#pragma once
#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "text/pattern.h"

namespace pellucid::text {

constexpr int32_t kNone = -1;

// GGUF's token types. kUndefined: the file gives none that we know; it is handled as a normal piece.
enum TokenType : uint8_t { kUndefined, kNormal, kUnknown, kControl, kUserDefined, kUnused, kByte };
constexpr uint8_t kTypeMask = 7, kStripLeft = 16, kStripRight = 32;  // flags beside the type

// A malformed array; `offset` is in bytes from the start of the buffer that was given.
struct VocabularyError : std::runtime_error {
  VocabularyError(const std::string& problem, size_t at) : std::runtime_error(problem), offset(at) {}
  size_t offset;
};

// `count` strings, each a u64 length and its bytes, one after the other (GGUF). A view: the buffer must outlive it.
class StringArray {
 public:
  StringArray() = default;
  StringArray(const char* buffer, size_t size, size_t offset, size_t count);  // throws VocabularyError
  size_t size() const { return starts_.size(); }
  std::string_view operator[](size_t i) const {
    return {base_ + starts_[i], (i + 1 < starts_.size() ? starts_[i + 1] - 8 : end_) - starts_[i]};
  }
  size_t offset_of(size_t i) const { return first_ + starts_[i]; }

 private:
  const char* base_ = nullptr;
  size_t first_ = 0;              // where base_ lies in the buffer
  std::vector<uint32_t> starts_;  // of the bytes of each string, from base_
  uint32_t end_ = 0;
};

enum class Kind { kSpm, kByteLevelBpe, kPlainBpe };

struct Merge {
  int32_t rank = INT32_MAX, id = kNone;
};

// (left id, right id) -> rank and the piece they make. Open addressing, half full at most.
class MergeTable {
 public:
  void reserve(size_t count);
  void add(int32_t left, int32_t right, Merge merge);  // the first of equal pairs stays
  Merge find(int32_t left, int32_t right) const;

 private:
  struct Slot {
    uint64_t key = UINT64_MAX;
    Merge merge;
  };
  static uint64_t hash(uint64_t key) { return (key ^ key >> 29) * 0x9E3779B97F4A7C15ull; }
  std::vector<Slot> slots_;
  uint32_t shift_ = 64;
};

class Vocabulary {
 public:
  // scores: float32 [count] or empty (then all 0; SPM only). types: one byte each, or empty (all normal).
  Vocabulary(Kind kind, StringArray pieces, std::vector<uint8_t> types, std::vector<float> scores);

  // "left right" strings in order of rank. Returns how many were left out because a side, or what they make, is
  // no piece of the vocabulary: such a merge can never end in a token.
  size_t set_merges(const StringArray& merges);

  // Each stage splits what the one before left. Names that begin with '@' are the digit rules of splitter.cc.
  void set_stages(const std::vector<std::string>& patterns);

  size_t size() const { return pieces_.size(); }
  std::string_view piece(int32_t id) const;
  int32_t find(std::string_view piece) const;  // kNone: there is none
  TokenType type(int32_t id) const { return static_cast<TokenType>(flags_[id] & kTypeMask); }
  uint8_t flags(int32_t id) const { return flags_[id]; }
  void set_flags(int32_t id, uint8_t flags) { flags_[id] = flags; }
  void finish();  // after the last set_*: collects the special pieces, the byte tokens

  // What the token stands for in text.
  std::string bytes(int32_t id) const;

  // The bytes that a token spells in text that merging may produce: never a control, unknown or byte token.
  int32_t find_mergeable(std::string_view piece) const {
    const int32_t id = find(piece);
    return id != kNone && (1u << type(id) & kMergeable) ? id : kNone;
  }

  static constexpr uint32_t kMergeable = 1u << kUndefined | 1u << kNormal | 1u << kUserDefined | 1u << kUnused;

  Kind kind;
  bool add_space_prefix = false;      // SPM
  bool ignore_merges = false;         // BPE: a word that is a piece is taken whole
  bool newline_words = false;         // BPE of Gemma 4: a word of newlines that is a piece is taken whole
  int32_t unknown_id = kNone;
  std::vector<int32_t> specials;      // control, unknown and user-defined ids, longest piece first
  std::vector<uint64_t> special_starts;  // bit set of the first two bytes of specials; [65536 / 64]
  bool special_of_one_byte[256] = {};
  std::vector<Pattern> patterns;
  std::vector<std::string> stages;    // empty: use the pattern of the same index
  MergeTable merges;
  std::vector<float> scores;
  int32_t byte_ids[256];              // the token of each byte, kNone if there is none
  size_t longest_piece = 0;

  // SPM: is there a piece with this character just before U+2581 (the escaped space)? See spm.cc.
  bool joins_space(uint32_t code_point) const;

 private:
  void index();
  void insert(int32_t id, uint64_t hash);
  int32_t find(std::string_view piece, uint64_t hash) const;

  StringArray pieces_;
  std::vector<std::string> empty_names_;              // "[EMPTY_i]" of pieces without bytes
  std::vector<std::pair<int32_t, uint32_t>> empty_;   // (id, index into empty_names_), ascending
  std::vector<uint8_t> flags_;
  std::vector<uint64_t> slots_;                       // upper half of the hash | id + 1; 0: free
  uint64_t slot_mask_ = 0;
  mutable std::once_flag joins_once_;
  mutable std::vector<uint32_t> joins_;               // sorted
};

uint64_t hash_bytes(std::string_view bytes);

}  // namespace pellucid::text
