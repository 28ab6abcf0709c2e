// What this machine can do at most: sequential reads, integer dot products. Measured, not looked up.
#include "kernels/kernels.h"
#include "kernels/kernels_here.h"
#include "simd/simd.h"

namespace pellucid::PELLUCID_ISA {

// a.size bytes, in pieces of 4 MiB: a thread that comes late leaves more to the others, and the sum stays right.
void probe_read(const void* arguments, Worker& worker) {
  constexpr int64_t kLine = 256, kPiece = (4 << 20) / kLine;
  const auto& a = *static_cast<const ProbeArgs*>(arguments);
  i32x16 sum[4] = {zero_i(), zero_i(), zero_i(), zero_i()};
  const int8_t one[4] = {1, 1, 1, 1};
  for (int64_t begin, end; worker.take(a.size / kLine, kPiece, begin, end);)
    for (const uint8_t* p = a.data + begin * kLine; p < a.data + end * kLine; p += kLine)
      for (int j = 0; j < 4; ++j) sum[j] = dot4(sum[j], load64(p + 64 * j), one);
  store_i8(a.sink + 64 * worker.index, add(add(sum[0], sum[1]), add(sum[2], sum[3])));
}

// a.size times 16 independent dots of 64 bytes.
void probe_dot(const void* arguments, Worker& worker) {
  constexpr int64_t kPiece = 20'000;
  const auto& a = *static_cast<const ProbeArgs*>(arguments);
  i32x16 acc[8];
  const u8x64 w = load64(a.data);
  const auto* x = reinterpret_cast<const int8_t*>(a.data);
  for (int j = 0; j < 8; ++j) acc[j] = zero_i();
  for (int64_t begin, end; worker.take(a.size, kPiece, begin, end);)
    for (int64_t i = 0; i < 2 * (end - begin); ++i)
      for (int j = 0; j < 8; ++j) acc[j] = dot4(acc[j], w, x);
  i32x16 total = zero_i();
  for (int j = 0; j < 8; ++j) total = add(total, acc[j]);
  store_i8(a.sink + 64 * worker.index, total);
}

}  // namespace pellucid::PELLUCID_ISA
