#include "kernels/kernels.h"
#include "kernels/kernels_here.h"
#include "simd/simd.h"

#define PELLUCID_TEXT_(x) #x
#define PELLUCID_TEXT(x) PELLUCID_TEXT_(x)

namespace pellucid::PELLUCID_ISA {

extern const Kernels table;
const Kernels table = {
    PELLUCID_TEXT(PELLUCID_ISA), kTileRows, kWideIsSigned, quantise, linear, gated, &pair_kernels, screen, peaks, exact_panel, rms_norm, layer_norm, rope, glu,
    add, attention_write, attention, attention_merge, probe_read, probe_dot,
};

}  // namespace pellucid::PELLUCID_ISA
