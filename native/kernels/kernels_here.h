// The kernels of the instruction set being compiled; gathered by table.cc.
#pragma once
#include "kernels/kernels.h"
#include "threads.h"

namespace pellucid::PELLUCID_ISA {
void quantise(const void* arguments, Worker& worker);
void linear(const void* arguments, Worker& worker);
void gated(const void* arguments, Worker& worker);
// Panel number `panel` times these rows of x (xq: rounded), the first of which is the first of a tile.
void one_panel(const LinearArgs& a, const PackedWeight& w, int64_t panel, const uint8_t* xq, RowRange rows);
// Of a.row_groups.
RowRange rows_of_group(const LinearArgs& a, int64_t group);
extern const PairKernels pair_kernels;
void screen(const void* arguments, Worker& worker);
void peaks(const void* arguments, Worker& worker);
void exact_panel(const PackedWeight& w, const uint8_t* xq, int64_t blocks, int64_t panel, float* out);
void rms_norm(const void* arguments, Worker& worker);
void layer_norm(const void* arguments, Worker& worker);
void rope(const void* arguments, Worker& worker);
void glu(const void* arguments, Worker& worker);
void add(const void* arguments, Worker& worker);
void attention_write(const void* arguments, Worker& worker);
void attention(const void* arguments, Worker& worker);
void attention_merge(const void* arguments, Worker& worker);
void probe_read(const void* arguments, Worker& worker);
void probe_dot(const void* arguments, Worker& worker);
}  // namespace pellucid::PELLUCID_ISA
