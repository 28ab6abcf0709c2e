// Panels of floats, and of BF16 in pairs: packed.h has their layout.
#include "quant/packed.h"
#include "quant/words.h"

namespace pellucid::quant {
namespace {

// 16 bytes of rows of floats, kWide values at a time; zeros past the end of a row and past the last one.
template <class T> struct FloatRows {
  static constexpr int kWide = 16 / sizeof(T);
  const uint8_t* src;  // of the panel's first row
  int64_t inputs;
  int live;

  Words at(int row, int64_t input) const {
    Words w = {};
    if (row >= live) return w;
    const uint8_t* from = src + (row * inputs + input) * static_cast<int64_t>(sizeof(T));
    if (input + kWide <= inputs) return words_at(from);
    std::memcpy(&w, from, static_cast<size_t>(inputs - input) * sizeof(T));
    return w;
  }
  // Words of four rows.
  void words(int row, int64_t input, Words* t) const {
    transpose(at(row, input), at(row + 1, input), at(row + 2, input), at(row + 3, input), t);
  }
  // t[i]: input + i of kWide rows.
  void columns(int row, int64_t input, Words* t) const {
    if constexpr (kWide == 4) {
      words(row, input, t);
    } else {
      Words a[4], b[4];
      words(row, input, a);
      words(row + 4, input, b);
      for (int i = 0; i < 4; ++i) {
        auto x = reinterpret_cast<Halves>(a[i]), y = reinterpret_cast<Halves>(b[i]);
        t[2 * i] = reinterpret_cast<Words>(PELLUCID_SHUFFLE(x, y, 0, 2, 4, 6, 8, 10, 12, 14));
        t[2 * i + 1] = reinterpret_cast<Words>(PELLUCID_SHUFFLE(x, y, 1, 3, 5, 7, 9, 11, 13, 15));
      }
    }
  }
};

template <class T> FloatRows<T> float_rows(const uint8_t* src, int64_t rows, int64_t inputs, int64_t first) {
  return {src + first * inputs * static_cast<int64_t>(sizeof(T)), inputs, static_cast<int>(std::min<int64_t>(kFloatRows, rows - first))};
}

template <class T> void pack(const uint8_t* src, int64_t rows, int64_t inputs, int64_t first, uint8_t* panel) {
  constexpr int kWide = FloatRows<T>::kWide;
  const FloatRows<T> some = float_rows<T>(src, rows, inputs, first);
  const NextRows next(src, rows, inputs * static_cast<int64_t>(sizeof(T)), first + kFloatRows, kFloatRows, inputs);
  for (int64_t k = 0; k < inputs; k += kWide) {
    next.prefetch(k, std::min(k + kWide, inputs));
    for (int r = 0; r < kFloatRows; r += kWide) {
      Words t[kWide];
      some.columns(r, k, t);
      for (int i = 0; i < kWide && k + i < inputs; ++i)
        std::memcpy(panel + ((k + i) * kFloatRows + r) * static_cast<int64_t>(sizeof(T)), &t[i], 16);
    }
  }
}

// Without bf16 values that are nearly nothing.
Words without_least(Words w) {
  const auto x = reinterpret_cast<Halves>(w);
  return reinterpret_cast<Words>(x & reinterpret_cast<Halves>((x & 0x7fff) >= kLeastBf16));
}

}  // namespace

void pack_float_panel(Format format, const uint8_t* src, int64_t rows, int64_t inputs, int64_t first, uint8_t* panel) {
  if (format == Format::F32) pack<uint32_t>(src, rows, inputs, first, panel);
  else pack<uint16_t>(src, rows, inputs, first, panel);
}

void pack_pair_panel(const uint8_t* src, int64_t rows, int64_t inputs, int64_t first, uint8_t* panel) {
  const FloatRows<uint16_t> some = float_rows<uint16_t>(src, rows, inputs, first);
  const NextRows next(src, rows, inputs * 2, first + kFloatRows, kFloatRows, pair_blocks(inputs));
  for (int64_t block = 0; block < pair_blocks(inputs); ++block, panel += kPairInputs * kFloatRows * 2) {
    next.prefetch(block, block + 1);
    for (int r = 0; r < kFloatRows; r += 4) {
      Words t[kPairInputs / 2];
      some.words(r, block * kPairInputs, t);
      for (int p = 0; p < kPairInputs / 2; ++p) {
        const Words pairs = without_least(t[p]);
        std::memcpy(panel + (p * kFloatRows + r) * 4, &pairs, 16);
      }
    }
  }
}

}  // namespace pellucid::quant
