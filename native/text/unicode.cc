#include "text/unicode.h"

#include <array>
#include <memory>

namespace pellucid::text {

#include "text/unicode_tables.inc"

namespace {

// One byte for each code point: 1.1 MB, filled on first use in well under a millisecond.
const uint8_t* categories() {
  static const std::unique_ptr<uint8_t[]> table = [] {
    auto out = std::make_unique<uint8_t[]>(0x110000);
    const size_t n = std::size(kCategoryRanges);
    for (size_t i = 0; i < n; ++i) {
      const uint32_t end = i + 1 < n ? kCategoryRanges[i + 1][0] : 0x110000;
      for (uint32_t c = kCategoryRanges[i][0]; c < end; ++c) out[c] = static_cast<uint8_t>(kCategoryRanges[i][1]);
    }
    return out;
  }();
  return table.get();
}

// GPT-2's alphabet: printable Latin-1 stands for itself, the other 68 bytes for 256, 257, ... in order.
struct ByteAlphabet {
  std::array<uint16_t, 256> to_char{};
  std::array<int16_t, 324> to_byte{};
  ByteAlphabet() {
    to_byte.fill(-1);
    uint16_t next = 256;
    for (int b = 0; b < 256; ++b) {
      const bool printable = (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
      to_char[b] = printable ? static_cast<uint16_t>(b) : next++;
      to_byte[to_char[b]] = static_cast<int16_t>(b);
    }
  }
};

const ByteAlphabet& alphabet() {
  static const ByteAlphabet table;
  return table;
}

}  // namespace

Category category(uint32_t code_point) {
  static const uint8_t* table = categories();
  return code_point < 0x110000 ? static_cast<Category>(table[code_point]) : Cn;
}

bool is_han(uint32_t code_point) {
  for (const auto& range : kHanRanges) {
    if (code_point < range[0]) return false;
    if (code_point <= range[1]) return true;
  }
  return false;
}

bool is_space(uint32_t c) {
  if (c < 128) return c == ' ' || (c >= 9 && c <= 13);
  return c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 ||
         c == 0x202F || c == 0x205F || c == 0x3000;
}

bool is_word(uint32_t c) {
  if ((kLetter | kMark | bit(Nd) | bit(Nl) | bit(Pc)) >> category(c) & 1) return true;
  if (c == 0xB2 || c == 0xB3 || c == 0xB9 || (c >= 0xBC && c <= 0xBE)) return true;  // Latin-1's small numbers
  return (c >= 0x24B6 && c <= 0x24E9) || (c >= 0x1F130 && c <= 0x1F149) || (c >= 0x1F150 && c <= 0x1F169) ||
         (c >= 0x1F170 && c <= 0x1F189);  // letters in circles and squares
}

uint32_t next_code_point(std::string_view text, size_t& pos) {
  constexpr uint32_t kLeast[] = {0, 0, 0x80, 0x800, 0x10000};
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char lead = byte(pos);
  const uint32_t length = utf8_length(lead);
  if (lead < 0x80) return byte(pos++);
  if (length > 1 && pos + length <= text.size()) {
    uint32_t c = lead & (0xFF >> (length + 1));
    bool sound = true;
    for (uint32_t i = 1; i < length; ++i) {
      sound = sound && (byte(pos + i) & 0xC0) == 0x80;
      c = c << 6 | (byte(pos + i) & 0x3F);
    }
    if (sound && c >= kLeast[length] && c < 0x110000) {
      pos += length;
      return c;
    }
  }
  return kStrayByte + byte(pos++);
}

void append_utf8(std::string& out, uint32_t c) {
  if (c < 0x80) {
    out += static_cast<char>(c);
  } else if (c < 0x800) {
    out += static_cast<char>(0xC0 | c >> 6);
    out += static_cast<char>(0x80 | (c & 0x3F));
  } else if (c < 0x10000) {
    out += static_cast<char>(0xE0 | c >> 12);
    out += static_cast<char>(0x80 | (c >> 6 & 0x3F));
    out += static_cast<char>(0x80 | (c & 0x3F));
  } else {
    out += static_cast<char>(0xF0 | c >> 18);
    out += static_cast<char>(0x80 | (c >> 12 & 0x3F));
    out += static_cast<char>(0x80 | (c >> 6 & 0x3F));
    out += static_cast<char>(0x80 | (c & 0x3F));
  }
}

uint32_t byte_to_char(unsigned char byte) { return alphabet().to_char[byte]; }
int char_to_byte(uint32_t c) { return c < alphabet().to_byte.size() ? alphabet().to_byte[c] : -1; }

}  // namespace pellucid::text
