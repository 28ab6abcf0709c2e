// Code points and their general categories (Unicode 16). Knows no tokenizer.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace pellucid::text {

// The order of generate_unicode.py.
enum Category : uint8_t {
  Cn, Lu, Ll, Lt, Lm, Lo, Mn, Mc, Me, Nd, Nl, No, Pc, Pd, Ps, Pe, Pi, Pf, Po, Sm, Sc, Sk, So, Zs, Zl, Zp, Cc, Cf, Co
};

constexpr uint32_t bit(Category c) { return 1u << c; }
constexpr uint32_t kLetter = bit(Lu) | bit(Ll) | bit(Lt) | bit(Lm) | bit(Lo);
constexpr uint32_t kMark = bit(Mn) | bit(Mc) | bit(Me);
constexpr uint32_t kNumber = bit(Nd) | bit(Nl) | bit(No);
constexpr uint32_t kPunctuation = bit(Pc) | bit(Pd) | bit(Ps) | bit(Pe) | bit(Pi) | bit(Pf) | bit(Po);
constexpr uint32_t kSymbol = bit(Sm) | bit(Sc) | bit(Sk) | bit(So);

Category category(uint32_t code_point);
bool is_han(uint32_t code_point);
bool is_space(uint32_t code_point);  // White_Space
bool is_word(uint32_t code_point);   // \w, as `tokenizers` has it: alphabetic, mark, digit, connector

// Bytes of the UTF-8 character that this byte starts (1 for a byte that starts none).
constexpr uint32_t utf8_length(unsigned char lead) {
  return lead < 0xC0 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : lead < 0xF8 ? 4 : 1;
}

// The code point at text[pos]; advances pos. Text comes from Python and is valid UTF-8, but a vocabulary may hold a
// special piece that is a part of a character: a byte that belongs to none is kStrayByte + byte, one byte long.
constexpr uint32_t kStrayByte = 0x110000;
uint32_t next_code_point(std::string_view text, size_t& pos);

void append_utf8(std::string& out, uint32_t code_point);

// The printable character that stands for a byte in byte-level BPE vocabularies, and back (-1: none).
uint32_t byte_to_char(unsigned char byte);
int char_to_byte(uint32_t code_point);

}  // namespace pellucid::text
