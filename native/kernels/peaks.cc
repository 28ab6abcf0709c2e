// A product of which only peaks stay: for each row and each lane the largest of kPanelsOfPeak panels of 16 outputs. For
// many rows that all want no more than a choice: their logits would be most of what a pass writes and reads.
#include "kernels/kernels_here.h"
#include "kernels/outputs.h"
#include "quant/packed.h"

namespace pellucid::PELLUCID_ISA {
namespace {

using quant::kLanes;

constexpr int64_t kRows = 64;  // at a time
static_assert(kRows % kTileRows == 0);

// Peak number `peak` of these rows. -> whether every output is finite.
bool peaks_of_rows(const PeaksArgs& a, int64_t peak, RowRange rows) {
  const int64_t count = rows.end - rows.begin, first = peak * kPanelsOfPeak;
  alignas(64) float outputs[kRows * kLanes], largest[kRows * kLanes];
  PackedWeight w = a.linear.weight[0];
  w.y_stride = kLanes;
  for (int64_t r = 0; r < count; ++r) store(largest + r * kLanes, set1(-__builtin_inff()));
  f32x16 zeros = zero_f();  // NaN from the first output on that is NaN or infinite
  for (int64_t p = first; p < first + kPanelsOfPeak && p < w.num_panels; ++p) {
    const int64_t left = w.outputs - p * kLanes;
    if (left < kLanes)
      for (int64_t r = 0; r < count; ++r) store(outputs + r * kLanes, zero_f());
    w.y = origin_of(outputs, kLanes, rows.begin, p * kLanes);
    one_panel(a.linear, w, p, a.linear.xq, rows);
    for (int64_t r = 0; r < count; ++r) {
      f32x16 y = load(outputs + r * kLanes);
      zeros = fma(y, zero_f(), zeros);
      if (left < kLanes) y = blend((1u << left) - 1, y, set1(-__builtin_inff()));
      store(largest + r * kLanes, max(y, load(largest + r * kLanes)));
    }
  }
  for (int64_t r = 0; r < count; ++r) {
    const int64_t at = (rows.begin + r) * a.num_peaks + peak;
    store(a.upper + at * kLanes, load(largest + r * kLanes));
    a.highest[at] = reduce_max(load(largest + r * kLanes));
  }
  return reduce_add(zeros) == 0.0f;
}

}  // namespace

void peaks(const void* arguments, Worker& worker) {
  const auto& a = *static_cast<const PeaksArgs*>(arguments);
  for (int64_t begin, end; worker.take_share(a.num_peaks, 1, begin, end);)
    for (int64_t peak = begin; peak < end; ++peak)
      for (int64_t row = 0; row < a.linear.rows; row += kRows) {
        const RowRange rows{row, row + kRows < a.linear.rows ? row + kRows : a.linear.rows};
        if (!peaks_of_rows(a, peak, rows)) a.unsound[worker.index] = 1;
      }
}

}  // namespace pellucid::PELLUCID_ISA
