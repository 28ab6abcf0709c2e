// The header of a split panel: what bounds the lower halves of its values.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "quant/packed.h"
#include "wide.h"

namespace pellucid::quant {
namespace {

// A plane set of nibbles (packed.h): input i of row r is in byte 4 r + i % 4 of line i / 4 % 4, upper half from input 16 on.
int nibble_of(const uint8_t* planes, int input, int row) {
  const uint8_t byte = planes[64 * (input / 4 % 4) + 4 * row + input % 4];
  return input < 16 ? byte & 15 : byte >> 4;
}

// For each row the sum of the squares of (nibble - 8), at most 32 * 64.
PELLUCID_WIDE void sum_squares(const uint8_t* __restrict planes, int* __restrict rows) {
  uint16_t sums[64] = {};
  for (int j = 0; j < 4; ++j)
    for (int i = 0; i < 64; ++i) {
      const int low = (planes[64 * j + i] & 15) - 8, high = (planes[64 * j + i] >> 4) - 8;
      sums[i] = static_cast<uint16_t>(sums[i] + low * low + high * high);
    }
  uint64_t words[kLanes];
  std::memcpy(words, sums, sizeof words);
  for (int r = 0; r < kLanes; ++r) rows[r] = static_cast<int>(words[r] * 0x0001000100010001u >> 48);  // its four parts, added
}

}  // namespace

void screen_header(int64_t inputs, const int32_t* hot, int num_hot, const uint8_t* lower, uint8_t* upper) {
  uint8_t* nibbles = upper + 64;
  std::memset(nibbles, 0, kHotInputs * 8);
  int largest[kLanes] = {};
  int sums[kLanes];
  int next = 0;
  for (int64_t b = 0; b < inputs / kBlock; ++b, lower += kNibbleBytes) {
    sum_squares(lower, sums);
    for (; next < num_hot && hot[next] < (b + 1) * kBlock; ++next)
      for (int r = 0; r < kLanes; ++r) {
        const int value = nibble_of(lower, hot[next] % kBlock, r);
        uint8_t& byte = nibbles[64 * (next / 8) + 4 * r + next % 4];
        byte = static_cast<uint8_t>(byte | value << (next / 4 % 2 * 4));
        sums[r] -= (value - 8) * (value - 8);
      }
    for (int r = 0; r < kLanes; ++r) largest[r] = std::max(largest[r], sums[r]);
  }
  float radii[kLanes];
  for (int r = 0; r < kLanes; ++r)
    radii[r] = std::nextafter(std::max(std::sqrt(static_cast<float>(largest[r])), kLeastRadius), HUGE_VALF);
  std::memcpy(upper, radii, sizeof radii);
}

}  // namespace pellucid::quant
