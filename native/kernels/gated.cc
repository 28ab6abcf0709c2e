// activation(x G^T) * (x U^T), rounded for the product that follows: gate and up never lie in memory as wholes. They
// would be written, read, written and read again, more than a second cache holds.
//
// A turn is 32 outputs of both matrices for some rows: a strip of gate and up beside one another, [rows][64].
#include "kernels/activations.h"
#include "kernels/kernels_here.h"
#include "kernels/outputs.h"
#include "kernels/rounding.h"
#include "quant/packed.h"

namespace pellucid::PELLUCID_ISA {
namespace {

constexpr int64_t kOutputs = 32, kStripRows = 64, kStride = 2 * kOutputs;
static_assert(kStripRows % kTileRows == 0);

// Outputs [32 unit, 32 unit + 32) of a matrix for these rows, to a column of the strip, whose first row is rows.begin.
void fill(const LinearArgs& a, PackedWeight w, int64_t unit, RowRange rows, float* column) {
  w.y = origin_of(column, kStride, rows.begin, kOutputs * unit);
  w.y_stride = kStride;
  const int64_t panels = kOutputs / quant::panel_rows(static_cast<quant::Format>(w.format)), first = unit * panels;
  for (int64_t p = first; p < first + panels && p < w.num_panels; ++p) one_panel(a, w, p, a.xq, rows);
}

// What the strip holds for these rows, activated, to `xq` as block number `unit` of the rounded rows or to `out`.
void finish(const GatedArgs& a, float* strip, int64_t unit, RowRange rows) {
  const auto kind = static_cast<Activation>(a.activation);
  const int64_t outputs = a.linear.weight[0].outputs, blocks = outputs / kOutputs, left = outputs - kOutputs * unit;
  for (int64_t row = rows.begin, count; row < rows.end; row += count) {  // a tile
    count = rows_of_tile(a.linear.rows, row / kTileRows);
    for (int r = 0; r < count; ++r, strip += kStride) {
      if (a.xq) {
        activate(kind, strip, strip + kOutputs, strip, kOutputs);
        quantise_block(strip, a.xq + (row * blocks + count * unit) * kActivationBytes, static_cast<int>(count), r);
      } else {
        activate(kind, strip, strip + kOutputs, a.out + (row + r) * outputs + kOutputs * unit, left < kOutputs ? left : kOutputs);
      }
    }
  }
}

void gated_rows(const GatedArgs& a, int64_t unit, RowRange rows) {
  alignas(64) float strip[kStripRows * kStride];
  for (int64_t begin = rows.begin, end; begin < rows.end; begin = end) {
    end = begin + kStripRows < rows.end ? begin + kStripRows : rows.end;
    fill(a.linear, a.linear.weight[0], unit, {begin, end}, strip);
    fill(a.linear, a.linear.weight[1], unit, {begin, end}, strip + kOutputs);
    finish(a, strip, unit, {begin, end});
  }
}

}  // namespace

void gated(const void* arguments, Worker& worker) {
  const auto& a = *static_cast<const GatedArgs*>(arguments);
  const LinearArgs& l = a.linear;
  const int64_t units = (l.weight[0].outputs + kOutputs - 1) / kOutputs;
  int64_t begin, end;
  if (l.row_groups == 1) {
    while (worker.take_share(units, l.step, begin, end))
      for (int64_t unit = begin; unit < end; ++unit) gated_rows(a, unit, {0, l.rows});
    return;
  }
  while (worker.take_near(l.row_groups * units, 1, begin, end)) gated_rows(a, begin % units, rows_of_group(l, begin / units));
}

}  // namespace pellucid::PELLUCID_ISA
