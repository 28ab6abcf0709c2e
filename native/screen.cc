#include "screen.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "pages.h"
#include "sampling/arithmetic.h"
#include "sampling/noise.h"

namespace pellucid {
namespace {

constexpr double kEpsilon = 0x1p-24;  // half an ulp of 1.0f
constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr int64_t kPanel = quant::kLanes;
constexpr int64_t kPanelsOfRun = sampling::kRun / kPanel;

void add_energy(Matrix& m, const float* x) {
  for (int64_t i = 0; i < m.inputs; ++i)
    if (std::isfinite(x[i])) m.energy[static_cast<size_t>(i)] += static_cast<double>(x[i]) * static_cast<double>(x[i]);
}

struct HeaderArgs {
  const Matrix* matrix;
};

void header_stage(const void* arguments, Worker& worker) {
  const Matrix& m = *static_cast<const HeaderArgs*>(arguments)->matrix;
  for (int64_t begin, end; worker.take(m.num_panels, 64, begin, end);)
    for (int64_t p = begin; p < end; ++p)
      quant::screen_header(m.inputs, m.hot.data(), static_cast<int>(m.hot.size()), m.lower + p * quant::lower_bytes(m.inputs),
                           m.data + p * m.panel_bytes);
}

struct RowArgs {
  Screen* screen;
};

// One rounded block of x as a ScreenBlock; hot inputs that lie in it, at most one term each, from hot[next] on.
ScreenBlock block_of(const Matrix& m, int64_t b, const uint8_t* x, size_t next) {
  const double n = static_cast<double>(m.inputs / quant::kBlock);
  // Of both chains of fused multiply-adds, their products d_b s_b and the last addition, each against the least radius.
  const double rounding = (4 * n + 8) * kEpsilon * 1.01 * 724.1 / quant::kLeastRadius;
  const double slack = 1.0 + (n + 8) * 4 * kEpsilon;  // of the spread's own chain
  const auto* q = reinterpret_cast<const int8_t*>(x);
  int64_t sum = 0, squares = 0;
  for (int i = 0; i < quant::kBlock; ++i) {
    sum += q[i];
    squares += q[i] * q[i];
  }
  int64_t cold_sum = sum, cold_squares = squares;
  for (; next < m.hot.size() && m.hot[next] < (b + 1) * quant::kBlock; ++next) {
    const int8_t v = q[m.hot[next] - b * quant::kBlock];
    cold_sum -= v;
    cold_squares -= v * v;
  }
  ScreenBlock block;
  std::memcpy(&block.scale, x + quant::kBlock, 4);
  std::memcpy(block.q, q, quant::kBlock);
  const double norm = std::sqrt(static_cast<double>(cold_squares)) + rounding * std::sqrt(static_cast<double>(squares));
  block.norm = std::nextafter(static_cast<float>(norm * slack * static_cast<double>(block.scale)), kInfinity);
  block.start = static_cast<int32_t>(8 * cold_sum - 128 * sum);
  return block;
}

// The rounded x of a pass as ScreenBlocks and ScreenTerms; flags cleared.
void rows_stage(const void* arguments, Worker&) {
  Screen& s = *static_cast<const RowArgs*>(arguments)->screen;
  const Matrix& m = *s.matrix;
  const int64_t num_blocks = m.inputs / quant::kBlock;
  std::fill(s.likely, s.likely + s.num_rows * s.num_threads, -1);
  std::fill(s.unsound, s.unsound + s.num_threads, 0);
  size_t next = 0;
  ScreenTerm* term = s.terms;
  for (int64_t b = 0; b < num_blocks; ++b) {
    for (int row = 0; row < s.num_rows; ++row)
      s.blocks[b * s.num_rows + row] = block_of(m, b, s.xq_of(row) + b * kActivationBytes, next);
    for (; next < m.hot.size() && m.hot[next] < (b + 1) * quant::kBlock; ++next, ++term) {
      *term = {static_cast<int32_t>(b), static_cast<int32_t>(next / 4), {}};
      for (int row = 0; row < s.num_rows; ++row)
        term->q[row][next % 4] = s.blocks[b * s.num_rows + row].q[m.hot[next] - b * quant::kBlock];
    }
  }
  *term = {-1, 0, {}};
}

// The flags as before a pass.
void clear_stage(const void* arguments, Worker&) {
  Screen& s = *static_cast<const RowArgs*>(arguments)->screen;
  std::fill(s.unsound, s.unsound + s.num_threads, 0);
}

// As NumPy divides float32 by float32.
double tempered(float z, float temperature) { return static_cast<double>(temperature == 1.0f ? z : z / temperature); }

// The best of one thread so far.
struct alignas(64) Best {
  double score;
  int64_t id;
  int64_t num_rescored;
};

struct SettleArgs {
  Screen* screen;
  int row;
  const Draw* draw;
  const Kernels* kernels;
  Best* best;         // [threads], all the same before
  double top, least;  // a tempered logit z is excluded unless z - top >= least
  int64_t done;       // a bound whose panels have been looked at; -1: none
};

// A choice among exact logits as they become known.
class Chooser {
 public:
  Chooser(const SettleArgs& args, Best& best)
      : a_(args),
        matrix_(*args.screen->matrix),
        w_(matrix_.as_weight(nullptr)),
        xq_(args.screen->xq_of(args.row)),
        upper_(args.screen->upper_of(args.row)),
        highest_(args.screen->highest_of(args.row)),
        best_(best) {}

  void argmax(int64_t first, int64_t end) {
    const int64_t shared = a_.screen->panels_of_bound;
    for (int64_t bound = first / shared; bound * shared < end; ++bound) {
      if (static_cast<double>(highest_[bound]) < best_.score || bound == a_.done) continue;
      for (int64_t p = bound * shared; p < std::min((bound + 1) * shared, end); ++p) argmax_panel(p);
    }
  }

  void draw(int64_t first, int64_t end) {
    for (int64_t p = first / kPanelsOfRun * kPanelsOfRun; p < end; p += kPanelsOfRun)
      if (bound_of(p) != a_.done) draw_run(p);
  }

 private:
  void argmax_panel(int64_t p) {
    if (p == best_.id / kPanel) return;  // known
    float z[kPanel];
    exact(p, z);
    for (int64_t i = 0; i < live(p); ++i) consider(static_cast<double>(z[i]), p * kPanel + i);
  }

  // The panels of the run of ids that panel `first` begins: their noise is computed together.
  void draw_run(int64_t first) {
    const int64_t end = std::min(first + kPanelsOfRun, matrix_.num_panels);
    const float most = *std::max_element(highest_ + bound_of(first), highest_ + bound_of(end - 1) + 1);
    const double needed = best_.score - tempered(most);
    if (needed > sampling::kLargestNoise || excluded(tempered(most))) return;
    uint32_t words[sampling::kRun];
    const auto block = static_cast<uint32_t>(first * kPanel / 4);
    if (sampling::noise_words(a_.draw->key, block, words) < sampling::least_word(needed)) return;
    for (int64_t p = first; p < end; ++p)
      if (in_question(p, first, words)) draw_panel(p, first, words);
  }

  int64_t bound_of(int64_t p) const { return a_.screen->bound_of(p); }
  double tempered(float z) const { return pellucid::tempered(z, a_.draw->temperature); }
  bool excluded(double z) const { return !(z - a_.top >= a_.least); }
  int64_t live(int64_t p) const { return std::min(kPanel, matrix_.outputs - p * kPanel); }
  static uint32_t word_of(const uint32_t* words, int64_t id_in_run) {
    return words[(id_in_run & 3) * (sampling::kRun / 4) + (id_in_run >> 2)];
  }

  bool in_question(int64_t p, int64_t first, const uint32_t* words) const {
    for (int64_t i = 0; i < live(p); ++i) {
      const double z = tempered(upper_[bound_of(p) * kPanel + i]);
      if (!excluded(z) && z + sampling::noise_bound(word_of(words, (p - first) * kPanel + i)) >= best_.score) return true;
    }
    return false;
  }

  void draw_panel(int64_t p, int64_t first, const uint32_t* words) {
    float exact_logits[kPanel];
    exact(p, exact_logits);
    for (int64_t i = 0; i < live(p); ++i) {
      const double z = tempered(exact_logits[i]);
      const uint32_t word = word_of(words, (p - first) * kPanel + i);
      if (!excluded(z) && z + sampling::noise_bound(word) >= best_.score)
        consider(z + sampling::gumbel_of(word), p * kPanel + i);
    }
  }

  // What is known exactly takes the place of its bound, for the next choice from this pass. One thread has the panel.
  void exact(int64_t p, float* out) {
    a_.kernels->exact_panel(w_, xq_, matrix_.inputs / quant::kBlock, p, out);
    ++best_.num_rescored;
    if (a_.screen->of_peaks()) return;  // the bound is others', too
    std::copy(out, out + live(p), upper_ + p * kPanel);
    highest_[p] = *std::max_element(out, out + live(p));
  }

  void consider(double score, int64_t id) {
    if (score > best_.score || (score == best_.score && id < best_.id)) best_.score = score, best_.id = id;
  }

  const SettleArgs& a_;
  const Matrix& matrix_;
  const PackedWeight w_;
  const uint8_t* const xq_;
  float* const upper_;
  float* const highest_;
  Best& best_;
};

constexpr int64_t kPanelsAtOnce = 512;  // whole runs of ids, and whole bounds
static_assert(kPanelsAtOnce % kPanelsOfRun == 0 && kPanelsAtOnce % kPanelsOfPeak == 0);

template <void (Chooser::*kLook)(int64_t first, int64_t end)> void settle_stage(const void* arguments, Worker& worker) {
  const auto& a = *static_cast<const SettleArgs*>(arguments);
  Chooser chooser(a, a.best[worker.index]);
  for (int64_t begin, end; worker.take(a.screen->matrix->num_panels, kPanelsAtOnce, begin, end);) (chooser.*kLook)(begin, end);
}

// Panels [first, end) to begin with.
std::vector<std::pair<int64_t, int64_t>> likely_panels(const Screen& s, int row) {
  if (s.of_peaks()) {
    const float* const highest = s.highest_of(row);
    const int64_t first = (std::max_element(highest, highest + s.num_bounds) - highest) * s.panels_of_bound;
    return {{first, std::min(first + s.panels_of_bound, s.matrix->num_panels)}};
  }
  std::vector<std::pair<int64_t, int64_t>> panels;
  for (int t = 0; t < s.num_threads; ++t)
    if (const int64_t p = s.likely_of(row)[t]; p >= 0) panels.push_back({p, p + 1});
  return panels;
}

}  // namespace

Screen::Screen(std::shared_ptr<Matrix> matrix_, int num_threads_, int num_rows_, Kind kind)
    : matrix(std::move(matrix_)),
      num_threads(num_threads_),
      num_rows(num_rows_),
      panels_of_bound(kind == Kind::kPeaks ? kPanelsOfPeak : 1),
      num_bounds((matrix->num_panels + panels_of_bound - 1) / panels_of_bound) {
  const auto num_blocks = static_cast<size_t>(matrix->inputs / quant::kBlock), bounds = static_cast<size_t>(num_bounds);
  const auto rows = static_cast<size_t>(num_rows), threads = static_cast<size_t>(num_threads);
  const size_t halves = kind == Kind::kHalves;
  const size_t sizes[] = {rows * num_blocks * kActivationBytes, halves * rows * num_blocks * sizeof(ScreenBlock),
                          halves * (quant::kHotInputs + 1) * sizeof(ScreenTerm), rows * bounds * kPanel * 4, rows * bounds * 4,
                          halves * rows * threads * 4, threads * 4};
  size_t total = 0, starts[7];
  for (int i = 0; i < 7; ++i) {
    starts[i] = total;
    total += whole(kLine, sizes[i]);
  }
  memory = make_buffer(total);
  const auto at = [&](int i) { return memory.get() + starts[i]; };
  xq = at(0);
  blocks = reinterpret_cast<ScreenBlock*>(at(1));
  terms = reinterpret_cast<ScreenTerm*>(at(2));
  upper = reinterpret_cast<float*>(at(3));
  highest = reinterpret_cast<float*>(at(4));
  likely = reinterpret_cast<int32_t*>(at(5));
  unsound = reinterpret_cast<int32_t*>(at(6));
}

// The inputs with the most energy, and all headers for them. Not part of a recording.
void Runner::fill_headers(Matrix& m) {
  std::vector<int32_t> order(static_cast<size_t>(m.inputs));
  std::iota(order.begin(), order.end(), 0);
  const auto num_hot = std::min<std::ptrdiff_t>(quant::kHotInputs, static_cast<std::ptrdiff_t>(order.size()));
  std::stable_sort(order.begin(), order.end(), [&](int32_t i, int32_t j) { return m.energy[static_cast<size_t>(i)] > m.energy[static_cast<size_t>(j)]; });
  m.hot.assign(order.begin(), order.begin() + num_hot);
  std::sort(m.hot.begin(), m.hot.end());
  const Stage stage = make_stage(header_stage, HeaderArgs{&m}, false);
  pool_.run(&stage, 1);
}

void Runner::screen(const float* x, Screen& s) {
  packing_.wait();
  Matrix& m = *s.matrix;
  if (m.hot.empty()) {
    m.energy.assign(static_cast<size_t>(m.inputs), 0.0);
    add_energy(m, x);
    fill_headers(m);
    m.energy.assign(static_cast<size_t>(m.inputs), 0.0);
  }
  s.x = x;
  const int64_t step = std::max<int64_t>(1, std::min<int64_t>((32 << 10) / m.panel_bytes, m.num_panels / (4 * num_threads())));
  const ScreenArgs args{m.as_weight(nullptr), s.blocks,  s.terms,    s.upper,       s.highest,            s.likely,
                        s.unsound,            s.num_rows, m.inputs / quant::kBlock, s.num_threads, step};
  Stage stages[kMaxScreenRows + 2];
  int n = 0;
  for (int row = 0; row < s.num_rows; ++row)
    stages[n++] = make_stage(kernels_.quantise, QuantiseArgs{s.x_of(row), s.xq_of(row), 1, m.inputs}, true);
  stages[n++] = make_stage(rows_stage, RowArgs{&s}, true);
  stages[n++] = make_stage(kernels_.screen, args, false);
  submit(stages, n);
}

void Runner::peaks(const float* x, Screen& s) {
  const Matrix* weights[] = {s.matrix.get()};
  s.x = x;
  PeaksArgs args{linear_args(x, s.num_rows, weights, nullptr, 1), s.upper, s.highest, s.unsound, s.num_bounds};
  args.linear.xq = scratch(static_cast<size_t>(activation_bytes(s.num_rows, s.matrix->inputs)));
  const Stage stages[] = {make_stage(clear_stage, RowArgs{&s}, true),
                          make_stage(kernels_.quantise, QuantiseArgs{x, args.linear.xq, s.num_rows, s.matrix->inputs}, false),
                          make_stage(kernels_.peaks, args, false)};
  submit(stages, 3);
}

int64_t Runner::settle(Screen& s, int row, const Draw& draw) {
  s.num_rescored = 0;
  Matrix& m = *s.matrix;
  if (!s.of_peaks() && m.num_rows_seen < kRowsForHot) {  // the bounds are there already: what changes now serves the next pass
    add_energy(m, s.x_of(row));
    if (++m.num_rows_seen == kRowsForHot) fill_headers(m);
  }
  if (std::any_of(s.unsound, s.unsound + s.num_threads, [](int32_t flag) { return flag != 0; })) return kUnsettled;
  if (s.of_peaks()) {
    const QuantiseArgs rounding{s.x_of(row), s.xq_of(row), 1, m.inputs};
    Worker alone = Worker::alone();
    kernels_.quantise(&rounding, alone);
  }
  std::vector<Best> best(static_cast<size_t>(num_threads()));
  const double lowest = -std::numeric_limits<double>::infinity();
  SettleArgs args{&s, row, &draw, &kernels_, best.data(), 0.0, lowest, -1};

  // Begins with what is likely to be best, so that few others stay in question.
  const auto likely = likely_panels(s, row);
  const auto choose = [&]<void (Chooser::*kLook)(int64_t, int64_t)>() {
    Best first{lowest, std::numeric_limits<int64_t>::max(), 0};
    Chooser chooser(args, first);
    for (const auto& [begin, end] : likely) (chooser.*kLook)(begin, end);
    // What has been looked at need not be again: the best only rises.
    if (s.of_peaks()) args.done = s.bound_of(likely.front().first);
    s.num_rescored += first.num_rescored;
    first.num_rescored = 0;
    std::fill(best.begin(), best.end(), first);
    const Stage stage = make_stage(settle_stage<kLook>, args, false);
    pool_.run(&stage, 1);
    for (const Best& b : best) {
      if (b.score > first.score || (b.score == first.score && b.id < first.id)) first = b;
      s.num_rescored += b.num_rescored;
    }
    args.done = -1;
    return first;
  };
  if (draw.temperature == 0.0f) return choose.operator()<&Chooser::argmax>().id;
  const float most = *std::max_element(s.highest_of(row), s.highest_of(row) + s.num_bounds);
  if (!std::isfinite(tempered(most, draw.temperature))) return kUnsettled;
  if (draw.min_p > 0.0) {
    const auto top = static_cast<float>(choose.operator()<&Chooser::argmax>().score);
    args.top = tempered(top, draw.temperature);
    args.least = sampling::log_positive(draw.min_p);
  }
  return choose.operator()<&Chooser::draw>().id;
}

}  // namespace pellucid
