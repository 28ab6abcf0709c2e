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
