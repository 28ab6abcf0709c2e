// Writes K and V of a pass into the cache, rounded to its format.
#include <cstring>

#include "kernels/attention_i16.h"
#include "kernels/formats.h"
#include "kernels/kernels.h"
#include "kernels/kernels_here.h"
#include "quant/half.h"
#include "simd/simd.h"

namespace pellucid::PELLUCID_ISA {
namespace {

// 16 values in a 16-bit or 32-bit format.
template <KvFormat F> inline void put(void* to, f32x16 x) {
  if constexpr (F == KvFormat::kF32) store(static_cast<float*>(to), x);
  else if constexpr (F == KvFormat::kF16) store_f16(static_cast<uint16_t*>(to), x);
  else {
    float lanes[16];
    store(lanes, x);
    for (int i = 0; i < 16; ++i) static_cast<uint16_t*>(to)[i] = quant::f32_to_bf16(lanes[i]);
  }
}

// group: 16 positions of one KV head, of which this is number `lane`.
template <KvFormat F> void write_floats(const float* k, const float* v, int64_t head_dim, int64_t lane, uint8_t* keys, uint8_t* values) {
  constexpr size_t kSize = value_bytes(F);
  values += static_cast<size_t>(lane * padded(head_dim)) * kSize;
  const auto write = [&](int64_t d, f32x16 key, f32x16 value, int64_t n) PELLUCID_INLINE_LAMBDA {
    uint8_t rounded[64];
    put<F>(rounded, key);
    for (int64_t i = 0; i < n; ++i) std::memcpy(keys + static_cast<size_t>((d + i) * 16 + lane) * kSize, rounded + i * kSize, kSize);
    put<F>(values + static_cast<size_t>(d) * kSize, value);
  };
  int64_t d = 0;
  for (; d + 16 <= head_dim; d += 16) write(d, load(k + d), load(v + d), 16);
  if (d < head_dim) write(d, load_first(k + d, head_dim - d), load_first(v + d, head_dim - d), head_dim - d);
}

// 32 values: scale is largest / 127 rounded to float16, q the nearest integer to x / scale, ties to even, within +-127.
// A block with NaN or infinity has the scale NaN.
inline uint16_t round_block(const float* x, int64_t n, int8_t* q) {
  const f32x16 a = load_first(x, n), b = load_first(x + 16, n - 16);
  const float largest = reduce_max(max(abs(a), abs(b)));
  const float zero = reduce_add(add(mul(a, zero_f()), mul(b, zero_f())));
  uint16_t half[16];
  store_f16(half, set1(zero == 0.0f ? largest / 127.0f : __builtin_nanf("")));
  const float scale = quant::f16_to_f32(half[0]);
  const f32x16 inverse = set1(scale > 0.0f ? 1.0f / scale : 0.0f), top = set1(127.0f), low = set1(-127.0f);
  store_i8(q, to_int(scale == scale ? max(min(round_even(mul(a, inverse)), top), low) : zero_f()));
  store_i8(q + 16, to_int(scale == scale ? max(min(round_even(mul(b, inverse)), top), low) : zero_f()));
  return half[0];
}

void write_q8(const float* k, const float* v, int64_t head_dim, int64_t lane, uint8_t* keys, uint8_t* values) {
  const int64_t blocks = q8_blocks(head_dim);
  for (int64_t b = 0; b < blocks; ++b) {
    const int64_t n = head_dim - b * kQ8Block < kQ8Block ? head_dim - b * kQ8Block : kQ8Block;
    int8_t q[kQ8Block];
    uint8_t* key = keys + b * kQ8GroupBytes;
    const uint16_t key_scale = round_block(k + b * kQ8Block, n, q);
    std::memcpy(key + lane * 2, &key_scale, 2);
    for (int64_t i = 0; i < kQ8Block; ++i) key[32 + i / 4 * 64 + lane * 4 + i % 4] = static_cast<uint8_t>(q[i] + 128);
    const uint16_t value_scale = round_block(v + b * kQ8Block, n, q);
    std::memcpy(values + b * 32 + lane * 2, &value_scale, 2);
    std::memcpy(values + blocks * 32 + (lane * blocks + b) * kQ8Block, q, kQ8Block);
  }
}

void write_i16(const float* k, const float* v, int64_t head_dim, int64_t lane, uint8_t* keys, uint8_t* values) {
  int16_t q[kMaxHeadDim];
  const float key_scale = round_row(k, head_dim, kKvSteps, q);
  std::memcpy(keys + lane * 4, &key_scale, 4);
  for (int64_t d = 0; d < head_dim; d += 2) std::memcpy(keys + kScalesBytes + d * 32 + lane * 4, q + d, 4);
  const float value_scale = round_row(v, head_dim, kKvSteps, q);
  std::memcpy(values + lane * 4, &value_scale, 4);
  uint8_t* to = values + kScalesBytes + lane / 2 * padded(head_dim) * 4 + lane % 2 * 2;
  for (int64_t d = 0; d < padded(head_dim); ++d) std::memcpy(to + d * 4, q + d, 2);
}

}  // namespace

void attention_write(const void* arguments, Worker& worker) {
  const auto& a = *static_cast<const AttentionArgs*>(arguments);
  const int64_t groups = a.block_size / kPositionGroup;
  const auto write = a.format == KvFormat::kF32   ? write_floats<KvFormat::kF32>
                     : a.format == KvFormat::kF16 ? write_floats<KvFormat::kF16>
                     : a.format == KvFormat::kBf16 ? write_floats<KvFormat::kBf16>
                     : a.format == KvFormat::kQ8_0 ? write_q8
                                                   : write_i16;
  // A turn is neighbouring rows of one head: a key's values lie among those of 15 other positions, in lines that two
  // threads should not write by turns. Few rows are mostly of different sequences, and are shared out more finely.
  const int64_t step = a.rows > 4 * kPositionGroup ? kPositionGroup : kPositionGroup / 2, parts = (a.rows + step - 1) / step;
  for (int64_t begin, end; worker.take_near(parts * a.kv_heads, 1, begin, end);) {
    const int64_t h = begin % a.kv_heads, first = begin / a.kv_heads * step;
    for (int64_t row = first; row < first + step && row < a.rows; ++row) {
      const int64_t block = a.slots[row] / a.block_size, inside = a.slots[row] % a.block_size;
      const int64_t at = (row * a.kv_heads + h) * a.head_dim, group = h * groups + inside / kPositionGroup;
      write(a.k + at, a.v + at, a.head_dim, inside % kPositionGroup,
            a.k_cache + block * a.block_stride + group * key_group_bytes(a.format, a.head_dim),
            a.v_cache + block * a.block_stride + group * value_group_bytes(a.format, a.head_dim));
    }
  }
}

}  // namespace pellucid::PELLUCID_ISA
