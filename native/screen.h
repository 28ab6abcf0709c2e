// The certified partial head: for each of a few rows the choice that all its logits would give, from half of the bits of
// most of them.
//
// A pass leaves an upper bound of each logit (kernels/screen.cc). A choice then computes exactly, with the bits of the
// whole product, the panels of 16 logits that the bounds leave in question, and no others: what is left out is certainly
// below the choice. How many are in question changes with x; the choice does not depend on it.
//
// Beyond a few rows the products cost more than the bytes. There the bounds are the logits themselves, of which each lane's
// largest of 16 panels stays (kernels/peaks.cc): a choice computes again the panels that could hold it.
//
// Hot inputs: few inputs of a head carry most of the energy of x (the 16 largest of 640: half). Their lower bits are read
// with the screen, which nearly halves the bounds. They are chosen by the first x that is screened, and again by the first
// kRowsForHot.
#pragma once
#include "kernels/kernels.h"
#include "quant/packed.h"
#include "runner.h"
#include "sampling/sampling.h"

namespace pellucid {

// The state of one pass over one matrix; its buffers keep their places, so that a recorded pass can write them.
struct Screen {
  // From half of the bits: a split matrix, num_rows <= kMaxScreenRows. From peaks: a quantised matrix, any rows.
  enum class Kind { kHalves, kPeaks };
  Screen(std::shared_ptr<Matrix> matrix, int num_threads, int num_rows, Kind kind = Kind::kHalves);

  bool of_peaks() const { return panels_of_bound > 1; }
  // Of panel p, bounds [16] at upper_of(row) + 16 * bound_of(p), shared by panels_of_bound panels.
  int64_t bound_of(int64_t panel) const { return panel / panels_of_bound; }

  // Of one row.
  const float* x_of(int row) const { return x + row * matrix->inputs; }
  uint8_t* xq_of(int row) const { return xq + row * activation_bytes(1, matrix->inputs); }
  float* upper_of(int row) const { return upper + row * num_bounds * quant::kLanes; }
  float* highest_of(int row) const { return highest + row * num_bounds; }
  const int32_t* likely_of(int row) const { return likely + row * num_threads; }

  std::shared_ptr<Matrix> matrix;
  int num_threads, num_rows;
  int64_t panels_of_bound, num_bounds;
  const float* x = nullptr;  // [num_rows][inputs] of the pass
  Buffer memory;
  uint8_t* xq;  // each row rounded by itself; from peaks: once it is needed
  ScreenBlock* blocks;
  ScreenTerm* terms;
  float* upper;
  float* highest;  // [num_rows][num_bounds]
  int32_t* likely;
  int32_t* unsound;
  int64_t num_rescored = 0;  // panels that the last choice computed
};

// A choice: the largest of (logit / temperature) + keyed Gumbel noise, or of the logits where temperature is 0; the
// lowest id of equals. min_p > 0: among those of at least this part of the largest's probability. The arithmetic is that
// of sampling/temperature.py, min_p.py and gumbel_argmax.
struct Draw {
  float temperature = 0.0f;
  double min_p = 0.0;
  sampling::NoiseKey key = {};
};

inline constexpr int kRowsForHot = 8;

// Where a bound is not finite nothing can be said: `settle` gives this, and the logits tell why.
inline constexpr int64_t kUnsettled = -2;

}  // namespace pellucid
