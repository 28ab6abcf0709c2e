// What packing shares: rows side by side, four bytes at a time. Little-endian, as files and kernels are.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstring>

namespace pellucid::quant {

// The rows of the panel after one, asked for in parts while it is packed. Its rows are read side by side, so that the
// processor does not see the next ones coming: with this, packing takes a quarter to a half of its time.
class NextRows {
 public:
  NextRows(const uint8_t* src, int64_t rows, int64_t row_bytes, int64_t first, int64_t panel_rows, int64_t parts)
      : bytes_(src + std::min(first, rows) * row_bytes),
        size_(std::min(panel_rows, std::max<int64_t>(rows - first, 0)) * row_bytes),
        parts_(parts) {}
  // Parts [begin, end).
  void prefetch(int64_t begin, int64_t end) const {
    for (int64_t at = size_ * begin / parts_; at < size_ * end / parts_; at += 64) __builtin_prefetch(bytes_ + at);
  }

 private:
  const uint8_t* bytes_;
  int64_t size_, parts_;
};

// Four words of four bytes each, or eight of two.
using Words = uint32_t __attribute__((vector_size(16)));
using Halves = uint16_t __attribute__((vector_size(16)));

// The elements of these numbers of a and b, one after the other.
#if defined(__GNUC__) && !defined(__clang__) && __GNUC__ < 12
#define PELLUCID_SHUFFLE(a, b, ...) __builtin_shuffle(a, b, decltype(a){__VA_ARGS__})
#else
#define PELLUCID_SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#endif

inline Words words_at(const uint8_t* bytes) {
  Words w;
  std::memcpy(&w, bytes, sizeof w);
  return w;
}

// Word i of row r -> word r of t[i].
inline void transpose(Words a, Words b, Words c, Words d, Words* t) {
  Words ab = PELLUCID_SHUFFLE(a, b, 0, 4, 1, 5), cd = PELLUCID_SHUFFLE(c, d, 0, 4, 1, 5);
  Words ab2 = PELLUCID_SHUFFLE(a, b, 2, 6, 3, 7), cd2 = PELLUCID_SHUFFLE(c, d, 2, 6, 3, 7);
  t[0] = PELLUCID_SHUFFLE(ab, cd, 0, 1, 4, 5);
  t[1] = PELLUCID_SHUFFLE(ab, cd, 2, 3, 6, 7);
  t[2] = PELLUCID_SHUFFLE(ab2, cd2, 0, 1, 4, 5);
  t[3] = PELLUCID_SHUFFLE(ab2, cd2, 2, 3, 6, 7);
}

}  // namespace pellucid::quant
