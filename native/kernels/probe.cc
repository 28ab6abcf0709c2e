// What this machine can do at most: sequential reads, integer dot products. Measured, not looked up.
#include "kernels/kernels.h"
#include "kernels/kernels_here.h"
#include "simd/simd.h"

namespace pellucid::PELLUCID_ISA {

// Each thread reads its own contiguous share once.
void probe_read(const void* arguments, Worker& worker) {
  const auto& a = *static_cast<const ProbeArgs*>(arguments);
  const int64_t share = a.size / worker.count / 256 * 256;
  const uint8_t* p = a.data + share * worker.index;
  i32x16 sum[4] = {zero_i(), zero_i(), zero_i(), zero_i()};
  const int8_t one[4] = {1, 1, 1, 1};
  for (int64_t i = 0; i < share; i += 256)
    for (int j = 0; j < 4; ++j) sum[j] = dot4(sum[j], load64(p + i + 64 * j), one);
  store_i8(a.sink + 64 * worker.index, add(add(sum[0], sum[1]), add(sum[2], sum[3])));
}

// a.size times 16 independent dots of 64 bytes.
void probe_dot(const void* arguments, Worker& worker) {
  const auto& a = *static_cast<const ProbeArgs*>(arguments);
  i32x16 acc[8];
  const u8x64 w = load64(a.data);
  const auto* x = reinterpret_cast<const int8_t*>(a.data);
  for (int j = 0; j < 8; ++j) acc[j] = zero_i();
  for (int64_t i = 0; i < 2 * a.size; ++i)
    for (int j = 0; j < 8; ++j) acc[j] = dot4(acc[j], w, x);
  i32x16 total = zero_i();
  for (int j = 0; j < 8; ++j) total = add(total, acc[j]);
  store_i8(a.sink + 64 * worker.index, total);
}

}  // namespace pellucid::PELLUCID_ISA
