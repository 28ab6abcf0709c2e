// The one vector width of pellucid: 16 float lanes, 16 int32 lanes, 64 bytes, whatever the machine has.
//
// Every instruction set gives the same bits: float operations are IEEE single operations lane by lane (fma is fused),
// integer dots are exact, reductions follow one fixed tree. kernels/*.cc is compiled once for each instruction set, with
// PELLUCID_ISA set to its name; everything of it lives in the namespace of that name.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(PELLUCID_ISA_avx512) || defined(PELLUCID_ISA_avx512bf16)
#include "simd/avx512.h"
#elif defined(PELLUCID_ISA_avx2)
#include "simd/avx2.h"
#elif defined(PELLUCID_ISA_neon)
#include "simd/neon.h"
#else
#include "simd/scalar.h"
#endif

namespace pellucid::PELLUCID_ISA {

// p[0 .. 16) as far as it lies before p[n), zeros behind that.
inline f32x16 load_first(const float* p, int64_t n) {
  if (n >= 16) return load(p);
  float lanes[16] = {};
  if (n > 0) std::memcpy(lanes, p, static_cast<size_t>(n) * 4);
  return load(lanes);
}
// Writes the first n < 16 lanes.
inline void store_first(float* p, f32x16 x, int64_t n) {
  float lanes[16];
  store(lanes, x);
  std::memcpy(p, lanes, static_cast<size_t>(n) * 4);
}

}  // namespace pellucid::PELLUCID_ISA
