#include "screen.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

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

// The rounded x of a pass as ScreenBlocks and ScreenTerms; flags cleared.
void row_stage(const void* arguments, Worker&) {
  Screen& s = *static_cast<const RowArgs*>(arguments)->screen;
  const Matrix& m = *s.matrix;
  const int64_t num_blocks = m.inputs / quant::kBlock;
  const double n = static_cast<double>(num_blocks);
  // Of both chains of fused multiply-adds, their products d_b s_b and the last addition, each against the least radius.
  const double rounding = (4 * n + 8) * kEpsilon * 1.01 * 724.1 / quant::kLeastRadius;
  const double slack = 1.0 + (n + 8) * 4 * kEpsilon;  // of the spread's own chain
  std::fill(s.likely, s.likely + s.num_threads, -1);
  std::fill(s.unsound, s.unsound + s.num_threads, 0);
  size_t hot = 0;
  ScreenTerm* term = s.terms;
  for (int64_t b = 0; b < num_blocks; ++b) {
    const uint8_t* x = s.xq + b * kActivationBytes;
    const auto* q = reinterpret_cast<const int8_t*>(x);
    int64_t sum = 0, squares = 0, cold_sum = 0, cold_squares = 0;
    for (int i = 0; i < quant::kBlock; ++i) {
      sum += q[i];
      squares += q[i] * q[i];
    }
    cold_sum = sum;
    cold_squares = squares;
    for (; hot < m.hot.size() && m.hot[hot] < (b + 1) * quant::kBlock; ++hot, ++term) {
      const int8_t v = q[m.hot[hot] - b * quant::kBlock];
      cold_sum -= v;
      cold_squares -= v * v;
      *term = {static_cast<int32_t>(b), static_cast<int32_t>(hot / 4), {0, 0, 0, 0}};
      term->q[hot % 4] = v;
    }
    float scale;
    std::memcpy(&scale, x + quant::kBlock, 4);
    const double norm = std::sqrt(static_cast<double>(cold_squares)) + rounding * std::sqrt(static_cast<double>(squares));
    const float up = std::nextafter(static_cast<float>(norm * slack * static_cast<double>(scale)), kInfinity);
    s.blocks[b] = {static_cast<int32_t>(8 * cold_sum - 128 * sum), scale, up};
  }
  *term = {-1, 0, {0, 0, 0, 0}};
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
  const Draw* draw;
  const Kernels* kernels;
  Best* best;         // [threads], all the same before
  double top, least;  // a tempered logit z is excluded unless z - top >= least
};

// A choice among exact logits as they become known.
class Chooser {
 public:
  Chooser(const SettleArgs& args, Best& best)
      : a_(args), s_(*args.screen), w_(s_.matrix->as_weight(nullptr)), blocks_(s_.matrix->inputs / quant::kBlock), best_(best) {}

  void argmax_panel(int64_t p) {
    if (static_cast<double>(s_.panel_upper[p]) < best_.score || p == best_.id / kPanel) return;  // too low, or known
    float z[kPanel];
    exact(p, z);
    for (int64_t i = 0; i < live(p); ++i) consider(static_cast<double>(z[i]), p * kPanel + i);
  }

  // The panels of the run of ids that panel `first` begins: their noise is computed together.
  void draw_run(int64_t first) {
    const int64_t end = std::min(first + kPanelsOfRun, s_.matrix->num_panels);
    const float most = *std::max_element(s_.panel_upper + first, s_.panel_upper + end);
    const double needed = best_.score - tempered(most);
    if (needed > sampling::kLargestNoise || excluded(tempered(most))) return;
    uint32_t words[sampling::kRun];
    const auto block = static_cast<uint32_t>(first * kPanel / 4);
    if (sampling::noise_words(a_.draw->key, block, words) < sampling::least_word(needed)) return;
    for (int64_t p = first; p < end; ++p)
      if (in_question(p, first, words)) draw_panel(p, first, words);
  }

 private:
  double tempered(float z) const { return pellucid::tempered(z, a_.draw->temperature); }
  bool excluded(double z) const { return !(z - a_.top >= a_.least); }
  int64_t live(int64_t p) const { return std::min(kPanel, s_.matrix->outputs - p * kPanel); }
  static uint32_t word_of(const uint32_t* words, int64_t id_in_run) {
    return words[(id_in_run & 3) * (sampling::kRun / 4) + (id_in_run >> 2)];
  }

  bool in_question(int64_t p, int64_t first, const uint32_t* words) const {
    for (int64_t i = 0; i < live(p); ++i) {
      const double z = tempered(s_.upper[p * kPanel + i]);
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
    a_.kernels->exact_panel(w_, s_.xq, blocks_, p, out);
    ++best_.num_rescored;
    std::copy(out, out + live(p), s_.upper + p * kPanel);
    s_.panel_upper[p] = *std::max_element(out, out + live(p));
  }

  void consider(double score, int64_t id) {
    if (score > best_.score || (score == best_.score && id < best_.id)) best_.score = score, best_.id = id;
  }

  const SettleArgs& a_;
  Screen& s_;
  const PackedWeight w_;
  const int64_t blocks_;
  Best& best_;
};

void argmax_stage(const void* arguments, Worker& worker) {
  const auto& a = *static_cast<const SettleArgs*>(arguments);
  Chooser chooser(a, a.best[worker.index]);
  for (int64_t begin, end; worker.take(a.screen->matrix->num_panels, 512, begin, end);)
    for (int64_t p = begin; p < end; ++p) chooser.argmax_panel(p);
}

void draw_stage(const void* arguments, Worker& worker) {
  const auto& a = *static_cast<const SettleArgs*>(arguments);
  Chooser chooser(a, a.best[worker.index]);
  const int64_t runs = (a.screen->matrix->num_panels + kPanelsOfRun - 1) / kPanelsOfRun;
  for (int64_t begin, end; worker.take(runs, 64, begin, end);)
    for (int64_t r = begin; r < end; ++r) chooser.draw_run(r * kPanelsOfRun);
}

}  // namespace

Screen::Screen(std::shared_ptr<Matrix> matrix_, int num_threads_) : matrix(std::move(matrix_)), num_threads(num_threads_) {
  const auto num_blocks = static_cast<size_t>(matrix->inputs / quant::kBlock), panels = static_cast<size_t>(matrix->num_panels);
  const size_t sizes[] = {num_blocks * kActivationBytes, num_blocks * sizeof(ScreenBlock), (quant::kHotInputs + 1) * sizeof(ScreenTerm),
                          panels * kPanel * 4, panels * 4, static_cast<size_t>(num_threads) * 4, static_cast<size_t>(num_threads) * 4};
  size_t total = 0, starts[7];
  for (int i = 0; i < 7; ++i) {
    starts[i] = total;
    total += (sizes[i] + 63) / 64 * 64;
  }
  memory = make_buffer(total);
  const auto at = [&](int i) { return memory.get() + starts[i]; };
  xq = at(0);
  blocks = reinterpret_cast<ScreenBlock*>(at(1));
  terms = reinterpret_cast<ScreenTerm*>(at(2));
  upper = reinterpret_cast<float*>(at(3));
  panel_upper = reinterpret_cast<float*>(at(4));
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
  const ScreenArgs args{m.as_weight(nullptr), s.xq,     s.blocks,  s.terms, s.upper, s.panel_upper, s.likely, s.unsound,
                        m.inputs / quant::kBlock, step};
  const Stage stages[3] = {make_stage(kernels_.quantise, QuantiseArgs{x, s.xq, 1, m.inputs}, true),
                           make_stage(row_stage, RowArgs{&s}, true), make_stage(kernels_.screen, args, false)};
  submit(stages, 3);
}

int64_t Runner::settle(Screen& s, const Draw& draw) {
  s.num_rescored = 0;
  Matrix& m = *s.matrix;
  if (m.num_rows_seen < kRowsForHot) {  // the bounds are there already: what changes now serves the next pass
    add_energy(m, s.x);
    if (++m.num_rows_seen == kRowsForHot) fill_headers(m);
  }
  if (std::any_of(s.unsound, s.unsound + s.num_threads, [](int32_t flag) { return flag != 0; })) return kUnsettled;
  std::vector<Best> best(static_cast<size_t>(num_threads()));
  const double lowest = -std::numeric_limits<double>::infinity();
  SettleArgs args{&s, &draw, &kernels_, best.data(), 0.0, lowest};

  // Begins with what is likely to be best, so that few others stay in question.
  const auto choose = [&](void (*run)(const void*, Worker&), auto one) {
    Best first{lowest, std::numeric_limits<int64_t>::max(), 0};
    Chooser chooser(args, first);
    for (int t = 0; t < s.num_threads; ++t)
      if (s.likely[t] >= 0) one(chooser, s.likely[t]);
    s.num_rescored += first.num_rescored;
    first.num_rescored = 0;
    std::fill(best.begin(), best.end(), first);
    const Stage stage = make_stage(run, args, false);
    pool_.run(&stage, 1);
    for (const Best& b : best) {
      if (b.score > first.score || (b.score == first.score && b.id < first.id)) first = b;
      s.num_rescored += b.num_rescored;
    }
    return first;
  };
  const auto argmax = [&] { return choose(argmax_stage, [](Chooser& c, int64_t p) { c.argmax_panel(p); }); };
  if (draw.temperature == 0.0f) return argmax().id;
  const float most = *std::max_element(s.panel_upper, s.panel_upper + s.matrix->num_panels);
  if (!std::isfinite(tempered(most, draw.temperature))) return kUnsettled;
  if (draw.min_p > 0.0) {
    const auto top = static_cast<float>(argmax().score);
    args.top = tempered(top, draw.temperature);
    args.least = sampling::log_positive(draw.min_p);
  }
  return choose(draw_stage, [](Chooser& c, int64_t p) { c.draw_run(p / kPanelsOfRun * kPanelsOfRun); }).id;
}

}  // namespace pellucid
