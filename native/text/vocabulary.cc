#include "text/vocabulary.h"

#include <algorithm>
#include <bit>
#include <charconv>
#include <cstring>

#include "text/unicode.h"

namespace pellucid::text {

namespace {

uint64_t load64(const char* p) {
  uint64_t word;
  std::memcpy(&word, p, 8);
  return word;
}

uint32_t load32(const char* p) {
  uint32_t word;
  std::memcpy(&word, p, 4);
  return word;
}

}  // namespace

// Multiply and fold; the ends of a string are read as words that may overlap.
uint64_t hash_bytes(std::string_view bytes) {
  const char* p = bytes.data();
  const size_t n = bytes.size();
  uint64_t h = 0x9E3779B97F4A7C15ull * (n + 1);
  const auto mix = [&](uint64_t word) {
    h = (h ^ word) * 0xD6E8FEB86659FD93ull;
    h ^= h >> 32;
  };
  if (n >= 8) {
    for (size_t at = 0; at + 8 < n; at += 8) mix(load64(p + at));
    mix(load64(p + n - 8));
  } else if (n >= 4) {
    mix(static_cast<uint64_t>(load32(p)) << 32 | load32(p + n - 4));
  } else if (n > 0) {
    const auto byte = [&](size_t i) { return static_cast<uint64_t>(static_cast<unsigned char>(p[i])); };
    mix(byte(0) << 16 | byte(n / 2) << 8 | byte(n - 1));
  }
  h *= 0xD6E8FEB86659FD93ull;
  return h ^ h >> 32;
}

StringArray::StringArray(const char* buffer, size_t size, size_t offset, size_t count)
    : base_(buffer + offset), first_(offset) {
  // Each string needs its eight bytes of length, so a count that the buffer cannot hold allocates nothing.
  if (offset > size || count > (size - offset) / 8) throw VocabularyError("more strings than the file has room for", offset);
  starts_.reserve(count);
  size_t at = 0;
  const size_t room = size - offset;
  for (size_t i = 0; i < count; ++i) {
    uint64_t length = 0;
    if (room - at < 8) throw VocabularyError("string " + std::to_string(i) + " is cut off", first_ + at);
    std::memcpy(&length, base_ + at, 8);
    if (length > room - at - 8) throw VocabularyError("string " + std::to_string(i) + " is cut off", first_ + at);
    if (at + 8 + length > UINT32_MAX) throw VocabularyError("the strings have more than 4 GiB", first_ + at);
    starts_.push_back(static_cast<uint32_t>(at + 8));
    at += 8 + length;
  }
  end_ = static_cast<uint32_t>(at);
}

void MergeTable::reserve(size_t count) {
  const size_t size = std::bit_ceil(std::max<size_t>(2 * count, 16));
  slots_.assign(size, Slot{});
  shift_ = 64 - static_cast<uint32_t>(std::countr_zero(size));
}

void MergeTable::add(int32_t left, int32_t right, Merge merge) {
  const uint64_t key = static_cast<uint64_t>(left) << 32 | static_cast<uint32_t>(right);
  size_t at = hash(key) >> shift_;
  while (slots_[at].key != UINT64_MAX) {
    if (slots_[at].key == key) return;
    at = (at + 1) & (slots_.size() - 1);
  }
  slots_[at] = {key, merge};
}

Merge MergeTable::find(int32_t left, int32_t right) const {
  if (left < 0 || right < 0 || slots_.empty()) return {};
  const uint64_t key = static_cast<uint64_t>(left) << 32 | static_cast<uint32_t>(right);
  for (size_t at = hash(key) >> shift_;; at = (at + 1) & (slots_.size() - 1)) {
    if (slots_[at].key == key) return slots_[at].merge;
    if (slots_[at].key == UINT64_MAX) return {};
  }
}

Vocabulary::Vocabulary(Kind of_kind, StringArray pieces, std::vector<uint8_t> types, std::vector<float> of_scores)
    : kind(of_kind), scores(std::move(of_scores)), pieces_(std::move(pieces)), flags_(std::move(types)) {
  if (flags_.empty()) flags_.assign(pieces_.size(), kNormal);
  if (scores.empty() && kind == Kind::kSpm) scores.assign(pieces_.size(), 0.0f);
  index();
}

void Vocabulary::index() {
  const size_t count = pieces_.size(), size = std::bit_ceil(std::max<size_t>(2 * count, 16));
  slots_.assign(size, 0);
  slot_mask_ = size - 1;
  std::vector<uint64_t> hashes(count);
  for (size_t i = 0; i < count; ++i) {
    if (pieces_[i].empty()) {
      empty_.emplace_back(static_cast<int32_t>(i), static_cast<uint32_t>(empty_names_.size()));
      empty_names_.push_back("[EMPTY_" + std::to_string(i) + "]");
    }
    const std::string_view text = pieces_[i].empty() ? std::string_view(empty_names_.back()) : pieces_[i];
    longest_piece = std::max(longest_piece, text.size());
    hashes[i] = hash_bytes(text);
  }
  constexpr size_t kAhead = 16;  // the table is larger than the cache: ask for a slot well before it is used
  for (size_t i = 0; i < count; ++i) {
    if (i + kAhead < count) __builtin_prefetch(&slots_[hashes[i + kAhead] & slot_mask_], 1);
    insert(static_cast<int32_t>(i), hashes[i]);
  }
}

void Vocabulary::insert(int32_t id, uint64_t h) {
  size_t at = h & slot_mask_;
  for (; slots_[at] != 0; at = (at + 1) & slot_mask_) {
    if (slots_[at] >> 32 != h >> 32) continue;
    const int32_t other = static_cast<int32_t>(slots_[at] & UINT32_MAX) - 1;
    if (piece(other) == piece(id)) {
      throw VocabularyError("piece " + std::to_string(id) + " is the same as piece " + std::to_string(other),
                            pieces_.offset_of(static_cast<size_t>(id)));
    }
  }
  slots_[at] = (h >> 32 << 32) | static_cast<uint32_t>(id + 1);
}

std::string_view Vocabulary::piece(int32_t id) const {
  const std::string_view text = pieces_[id];
  if (!text.empty()) return text;
  const auto found = std::lower_bound(empty_.begin(), empty_.end(), std::pair<int32_t, uint32_t>(id, 0));
  return empty_names_[found->second];
}

int32_t Vocabulary::find(std::string_view text) const {
  return text.size() > longest_piece ? kNone : find(text, hash_bytes(text));
}

int32_t Vocabulary::find(std::string_view text, uint64_t h) const {
  for (size_t at = h & slot_mask_; slots_[at] != 0; at = (at + 1) & slot_mask_) {
    if (slots_[at] >> 32 != h >> 32) continue;
    const int32_t id = static_cast<int32_t>(slots_[at] & UINT32_MAX) - 1;
    if (piece(id) == text) return id;
  }
  return kNone;
}

size_t Vocabulary::set_merges(const StringArray& list) {
  merges.reserve(list.size());
  size_t left_out = 0;
  // In blocks, so that the three look-ups of a merge are asked for before they are needed.
  constexpr size_t kBlock = 64;
  struct Row {
    std::string_view left, right;
    std::string joined;
    uint64_t hashes[3];
  };
  std::vector<Row> rows(kBlock);
  for (size_t first = 0; first < list.size(); first += kBlock) {
    const size_t count = std::min(kBlock, list.size() - first);
    for (size_t i = 0; i < count; ++i) {
      const std::string_view line = list[first + i];
      const size_t space = line.find(' ', 1);  // a side is never empty, but may begin with a space
      if (space == std::string_view::npos || space + 1 >= line.size()) {
        throw VocabularyError("merge " + std::to_string(first + i) + " is not two pieces with a space between them",
                              list.offset_of(first + i));
      }
      Row& row = rows[i];
      row.left = line.substr(0, space);
      row.right = line.substr(space + 1);
      row.joined.assign(row.left).append(row.right);
      row.hashes[0] = hash_bytes(row.left);
      row.hashes[1] = hash_bytes(row.right);
      row.hashes[2] = hash_bytes(row.joined);
      for (const uint64_t h : row.hashes) __builtin_prefetch(&slots_[h & slot_mask_]);
    }
    for (size_t i = 0; i < count; ++i) {
      const Row& row = rows[i];
      const int32_t left = find(row.left, row.hashes[0]), right = find(row.right, row.hashes[1]);
      const int32_t id = find(row.joined, row.hashes[2]);
      if (left == kNone || right == kNone || id == kNone || !(1u << type(id) & kMergeable)) {
        ++left_out;
      } else {
        merges.add(left, right, {static_cast<int32_t>(first + i), id});
      }
    }
  }
  return left_out;
}

void Vocabulary::set_stages(const std::vector<std::string>& list) {
  for (const std::string& stage : list) {
    const bool rule = !stage.empty() && stage[0] == '@';
    stages.push_back(rule ? stage : "");
    patterns.emplace_back(rule ? "\\s" : std::string_view(stage));
  }
}

void Vocabulary::finish() {
  specials.clear();
  special_starts.assign(65536 / 64, 0);
  constexpr uint32_t special = 1u << kUnknown | 1u << kControl | 1u << kUserDefined;
  for (size_t i = 0; i < size(); ++i) {
    if (1u << type(static_cast<int32_t>(i)) & special) specials.push_back(static_cast<int32_t>(i));
  }
  std::stable_sort(specials.begin(), specials.end(),
                   [&](int32_t a, int32_t b) { return piece(a).size() > piece(b).size(); });
  for (const int32_t id : specials) {
    const std::string_view text = piece(id);
    const auto first = static_cast<unsigned char>(text[0]);
    if (text.size() == 1) {
      special_of_one_byte[first] = true;
    } else {
      const uint32_t two = first << 8 | static_cast<unsigned char>(text[1]);
      special_starts[two / 64] |= 1ull << two % 64;
    }
  }
  for (int b = 0; b < 256; ++b) {
    static const char* hex = "0123456789ABCDEF";
    std::string name;
    if (kind == Kind::kByteLevelBpe) {
      append_utf8(name, byte_to_char(static_cast<unsigned char>(b)));
      byte_ids[b] = find_mergeable(name);
    } else {
      byte_ids[b] = find({"<0x" + std::string{hex[b >> 4], hex[b & 15]} + ">"});
      if (byte_ids[b] == kNone && kind == Kind::kSpm) byte_ids[b] = find_mergeable(std::string(1, static_cast<char>(b)));
    }
  }
}

std::string Vocabulary::bytes(int32_t id) const {
  const std::string_view text = piece(id);
  const TokenType of_type = type(id);
  if (of_type == kControl || of_type == kUnknown) return std::string(text);
  std::string out;
  if (of_type == kByte && text.size() == 6 && text.starts_with("<0x") && text[5] == '>') {
    unsigned value = 0;
    const auto [stop, error] = std::from_chars(text.data() + 3, text.data() + 5, value, 16);
    if (error == std::errc() && stop == text.data() + 5) return std::string(1, static_cast<char>(value));
  }
  if (kind == Kind::kByteLevelBpe) {
    if (of_type == kUserDefined) return std::string(text);
    for (size_t at = 0; at < text.size();) {
      const int byte = char_to_byte(next_code_point(text, at));
      if (byte < 0) return std::string(text);  // not of the byte alphabet: stands for itself
      out += static_cast<char>(byte);
    }
    return out;
  }
  for (size_t at = 0; at < text.size();) {  // U+2581 is a space
    const size_t mark = std::min(text.find("\xE2\x96\x81", at), text.size());
    out.append(text.substr(at, mark - at));
    if (mark < text.size()) out += ' ';
    at = mark + 3;
  }
  return out;
}

bool Vocabulary::joins_space(uint32_t code_point) const {
  std::call_once(joins_once_, [&] {
    for (size_t i = 0; i < size(); ++i) {
      const std::string_view text = pieces_[i];
      if (!(1u << type(static_cast<int32_t>(i)) & kMergeable)) continue;
      for (size_t at = text.find("\xE2\x96\x81", 1); at != std::string_view::npos; at = text.find("\xE2\x96\x81", at + 3)) {
        size_t before = at - 1;
        while (before > 0 && (static_cast<unsigned char>(text[before]) & 0xC0) == 0x80) --before;
        joins_.push_back(next_code_point(text, before));
      }
    }
    std::sort(joins_.begin(), joins_.end());
    joins_.erase(std::unique(joins_.begin(), joins_.end()), joins_.end());
  });
  return std::binary_search(joins_.begin(), joins_.end(), code_point);
}

}  // namespace pellucid::text
