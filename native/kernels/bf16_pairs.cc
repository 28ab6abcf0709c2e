// y = x W^T + bias where both x and W are bf16 and the sums float32: for those who ask for it (`activations="bf16"`).
//
// Each output is one chain over its inputs: two fused multiply-adds for each pair, the odd input first and then the even
// one. That is what AVX512_BF16's instruction does (Intel SDM, VDPBF16PS), so all instruction sets give its bits; it would
// take subnormal numbers for zero, but there are none (quant::kLeastBf16). For `avx512bf16` this file is compiled a second
// time, with that instruction, and replaces its twin in the table of avx512 (cpu.cc).
#include <bit>

#include "kernels/formats.h"
#include "kernels/kernels.h"
#include "kernels/kernels_here.h"
#include "kernels/outputs.h"

namespace pellucid::PELLUCID_ISA {
namespace {

using quant::kFloatRows;
using quant::kPairInputs;
constexpr int kPairs = kPairInputs / 2;  // of a block

// --- pairs of 16 outputs, and the pair of one row for all of them -------------------------------------------------

#ifdef __AVX512BF16__
constexpr int kPairTileRows = 12;  // 24 sums, 2 weights and a pair of x: 27 of 32 registers
struct Pairs { __m512bh v; };
inline Pairs pairs_of_outputs(const uint16_t* p) { return {(__m512bh)_mm512_loadu_si512(p)}; }
inline Pairs pair_of_row(const uint16_t* p) {
  int32_t bits;
  std::memcpy(&bits, p, 4);
  return {(__m512bh)_mm512_set1_epi32(bits)};
}
inline f32x16 add_pairs(f32x16 sum, Pairs w, Pairs x) { return {_mm512_dpbf16_ps(sum.v, w.v, x.v)}; }
#else
constexpr int kPairTileRows = kFloatTileRows;
struct Pairs { f32x16 even, odd; };
inline Pairs pairs_of_outputs(const uint16_t* p) { return {load_bf16_even(p), load_bf16_odd(p)}; }
inline float widened(uint16_t bits) { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }
inline Pairs pair_of_row(const uint16_t* p) { return {set1(widened(p[0])), set1(widened(p[1]))}; }
inline f32x16 add_pairs(f32x16 sum, const Pairs& w, const Pairs& x) { return fma(w.even, x.even, fma(w.odd, x.odd, sum)); }
#endif

// --- x rounded to bf16 --------------------------------------------------------------------------------------------

// To nearest, ties to even; NaN stays NaN; what is below quant::kLeastBf16 is zero.
inline uint16_t to_bf16(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  const uint32_t rounded = (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
  const uint32_t kept = (bits & 0x7fffffffu) > 0x7f800000u ? bits >> 16 | 0x40u : rounded;
  return static_cast<uint16_t>((kept & 0x7fffu) < quant::kLeastBf16 ? 0 : kept);
}

// Values are rounded so many at a time, in a loop that compilers make vectors of, and then laid out.
constexpr int64_t kRoundedAtOnce = 256;

void round_tile(const float* x, int64_t inputs, int64_t count, uint8_t* out) {
  constexpr int64_t kBlockBytes = 2 * kPairInputs;
  alignas(64) uint16_t rounded[kRoundedAtOnce];
  for (int64_t r = 0; r < count; ++r, x += inputs) {
    uint8_t* p = out + kBlockBytes * r;
    for (int64_t k = 0; k < inputs; k += kRoundedAtOnce) {
      const int64_t n = inputs - k < kRoundedAtOnce ? inputs - k : kRoundedAtOnce;
      const int64_t filled = quant::pair_blocks(n) * kPairInputs;
      for (int64_t i = 0; i < n; ++i) rounded[i] = to_bf16(x[k + i]);
      for (int64_t i = n; i < filled; ++i) rounded[i] = 0;
      for (int64_t i = 0; i < filled; i += kPairInputs, p += kBlockBytes * count) std::memcpy(p, rounded + i, kBlockBytes);
    }
  }
}

int64_t num_tiles(int64_t rows) { return (rows + kPairTileRows - 1) / kPairTileRows; }
int64_t first_row(int64_t tile, int64_t rows, int64_t tiles) { return tile * rows / tiles; }

void round_row(const float* x, int64_t inputs, uint8_t* out) { round_tile(x, inputs, 1, out); }

void round_rows(const void* arguments, Worker& worker) {
  const auto& a = *static_cast<const QuantiseArgs*>(arguments);
  const int64_t tiles = num_tiles(a.rows), row_bytes = pair_activation_bytes(1, a.inputs);
  for (int64_t begin, end; worker.take_near(tiles, 1, begin, end);) {
    const int64_t first = first_row(begin, a.rows, tiles), next = first_row(end, a.rows, tiles);
    round_tile(a.x + first * a.inputs, a.inputs, next - first, a.out + first * row_bytes);
  }
}

// --- one panel of 32 outputs times one tile of R rows -------------------------------------------------------------

// Of the next panel, `step` bytes from ahead + block * step on are asked for with each block.
template <int R>
PELLUCID_INLINE void panel_times_tile(const uint16_t* w, const uint16_t* x, int64_t blocks, const uint8_t* ahead, int64_t step,
                                      f32x16 (&sums)[R][2]) {
  for (int r = 0; r < R; ++r) sums[r][0] = sums[r][1] = zero_f();
  for (int64_t b = 0; b < blocks; ++b, w += kPairInputs * kFloatRows, x += R * kPairInputs) {
    if constexpr (R > 4) {  // where memory is the limit, the processor's own prefetchers do better alone (measured)
      for (int64_t i = 0; i < step; i += 64) __builtin_prefetch(ahead + b * step + i, 0, 2);
    }
    for (int p = 0; p < kPairs; ++p) {
      const Pairs w0 = pairs_of_outputs(w + 64 * p), w1 = pairs_of_outputs(w + 64 * p + 32);
      for (int r = 0; r < R; ++r) {
        const Pairs pair = pair_of_row(x + r * kPairInputs + 2 * p);
        sums[r][0] = add_pairs(sums[r][0], w0, pair);
        sums[r][1] = add_pairs(sums[r][1], w1, pair);
      }
    }
  }
}

void pair_panel(const LinearArgs& a, const PackedWeight& w, int64_t panel, const uint8_t* x) {
  const int64_t blocks = quant::pair_blocks(a.inputs), tiles = num_tiles(a.rows), step = w.panel_bytes / (tiles * blocks);
  const auto* weights = reinterpret_cast<const uint16_t*>(w.data + panel * w.panel_bytes);
  const uint8_t* ahead = w.data + (panel + 1) * w.panel_bytes;
  for (int64_t tile = 0; tile < tiles; ++tile, ahead += blocks * step) {
    const int64_t row = first_row(tile, a.rows, tiles), count = first_row(tile + 1, a.rows, tiles) - row;
    const auto* rounded = reinterpret_cast<const uint16_t*>(x + row * pair_activation_bytes(1, a.inputs));
    with_number<kPairTileRows>(count, [&](auto rows) {
      f32x16 sums[rows][2];
      panel_times_tile<rows>(weights, rounded, blocks, ahead, step, sums);
      for (int r = 0; r < rows; ++r)
        for (int h = 0; h < 2; ++h)
          if (kFloatRows * panel + 16 * h < w.outputs) write_outputs(sums[r][h], w, row + r, kFloatRows * panel + 16 * h);
    });
  }
}

}  // namespace

extern const PairKernels pair_kernels;
const PairKernels pair_kernels = {round_row, round_rows, pair_panel};

#ifdef __AVX512BF16__
// Whether this processor's instruction is what its manual says: sums, products that overflow alone, ties, infinities.
bool instruction_is_two_fmas();
bool instruction_is_two_fmas() {
  uint64_t state = 1;
  const auto draw = [&state] {
    state = state * 6364136223846793005u + 1442695040888963407u;
    const auto bits = static_cast<uint32_t>(state >> 33);
    const uint32_t exponent = bits & 7 ? 124 + (bits >> 3) % 6 : 71 + (bits >> 3) % 185;  // near 1, or any down to 2^-56
    return static_cast<uint16_t>((bits >> 15 & 0x807f) | exponent << 7);
  };
  const auto widened = [](uint16_t bits) { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); };
  float sums[16] = {};
  for (int round = 0; round < 200; ++round) {
    uint16_t w[32], x[2] = {draw(), draw()};
    for (uint16_t& v : w) v = draw();
    float next[16];
    store(next, add_pairs(load(sums), pairs_of_outputs(w), pair_of_row(x)));
    for (int i = 0; i < 16; ++i) {
      const float odd = __builtin_fmaf(widened(w[2 * i + 1]), widened(x[1]), sums[i]);
      const float both = __builtin_fmaf(widened(w[2 * i]), widened(x[0]), odd);
      if (std::bit_cast<uint32_t>(both) != std::bit_cast<uint32_t>(next[i]) && (both == both || next[i] == next[i])) return false;
      sums[i] = __builtin_fabsf(both) < 0x1p100f ? both : 0.0f;  // also of NaN
    }
  }
  return true;
}
#endif

}  // namespace pellucid::PELLUCID_ISA
