#include "runner.h"

#include <algorithm>
#include <chrono>

#include "pages.h"
#include "quant/packed.h"

namespace pellucid {
namespace {

using quant::Format;

constexpr int64_t kSerialElements = 8192;  // elementwise work below this is not worth a second thread
constexpr int64_t kPackBytes = 2 << 20;     // of a file in memory at a time, beside what is packed of them
constexpr int64_t kTakeBytes = 32 << 10;   // weights taken at a time, at least
constexpr int64_t kRowsOfGroup = 24;       // a thread reads all weights for at least so many rows of its own

int64_t whole_lines(int64_t bytes) { return static_cast<int64_t>(whole(kLine, static_cast<size_t>(bytes))); }

struct PackArgs {
  Format format;
  const uint8_t* src;
  uint8_t* dst;
  uint8_t* lower;  // of a split matrix
  bool in_pairs;
  int64_t outputs, inputs, num_panels, panel_bytes;
  bool wide_is_signed;
};

void pack_stage(const void* arguments, Worker& worker) {
  const auto& a = *static_cast<const PackArgs*>(arguments);
  const int64_t step = std::max<int64_t>(1, (256 << 10) / a.panel_bytes), rows = quant::panel_rows(a.format);
  for (int64_t begin, end; worker.take(a.num_panels, step, begin, end);)
    for (int64_t p = begin; p < end; ++p)
      if (a.lower) {
        quant::pack_split_panel(a.src, a.outputs, a.inputs, p * rows, a.dst + p * a.panel_bytes,
                                a.lower + p * quant::lower_bytes(a.inputs));
      } else if (a.in_pairs) {
        quant::pack_pair_panel(a.src, a.outputs, a.inputs, p * rows, a.dst + p * a.panel_bytes);
      } else {
        quant::pack_panel(a.format, a.src, a.outputs, a.inputs, p * rows, a.wide_is_signed, a.dst + p * a.panel_bytes);
      }
}

void embed_stage(const void* arguments, Worker& worker) {
  const auto& a = *static_cast<const EmbedArgs*>(arguments);
  for (int64_t begin, end; worker.take(a.rows, 8, begin, end);)
    for (int64_t r = begin; r < end; ++r) {
      float* out = a.out + r * a.width;
      quant::dequantize_row(static_cast<Format>(a.format), a.table + a.ids[r] * a.row_bytes, out, a.width);
      if (a.scale != 1.0f)
        for (int64_t i = 0; i < a.width; ++i) out[i] *= a.scale;
    }
}

void rows_stage(const void* arguments, Worker& worker) {
  const auto& a = *static_cast<const RowsArgs*>(arguments);
  for (int64_t begin, end; worker.take(a.num_rows, 8, begin, end);)
    for (int64_t r = begin; r < end; ++r)
      std::memcpy(a.out + r * a.width, a.x + a.index[r] * a.width, static_cast<size_t>(a.width) * 4);
}

double seconds_of(ThreadPool& pool, const Stage& stage) {
  const auto start = std::chrono::steady_clock::now();
  pool.run(&stage, 1);
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

double Runner::probe_read(int64_t bytes) {
  packing_.wait();
  Arena arena;
  uint8_t* data = arena.allocate(static_cast<size_t>(bytes));
  std::memset(data, 1, static_cast<size_t>(bytes));
  const Buffer sink = make_buffer(static_cast<size_t>(64 * num_threads()));
  const Stage stage = make_stage(kernels_.probe_read, ProbeArgs{data, reinterpret_cast<int8_t*>(sink.get()), bytes}, false);
  return static_cast<double>(bytes) / seconds_of(pool_, stage);
}

double Runner::probe_dot(int64_t turns) {
  packing_.wait();
  turns *= num_threads();
  const Buffer data = make_buffer(256), sink = make_buffer(static_cast<size_t>(64 * num_threads()));
  std::memset(data.get(), 1, 256);
  const Stage stage = make_stage(kernels_.probe_dot, ProbeArgs{data.get(), reinterpret_cast<int8_t*>(sink.get()), turns}, false);
  const double dots = static_cast<double>(turns) * 16;
  return dots * 64 * 2 / seconds_of(pool_, stage);
}

Runner::Runner(int num_threads, const Kernels& kernels, std::shared_ptr<Arena> arena)
    : kernels_(kernels), pool_(num_threads), arena_(std::move(arena)) {}

std::shared_ptr<Matrix> Runner::allocate(int format, int64_t outputs, int64_t inputs, bool split, bool in_pairs) {
  const auto f = static_cast<Format>(format);
  const int64_t rows = quant::panel_rows(f), panels = (outputs + rows - 1) / rows;
  const int64_t bytes = split      ? quant::upper_bytes(inputs)
                        : in_pairs ? quant::pair_panel_bytes(inputs)
                                   : quant::panel_bytes(f, inputs);
  uint8_t* data = arena_->allocate(static_cast<size_t>(panels * bytes));
  uint8_t* lower = split ? arena_->allocate(static_cast<size_t>(panels * quant::lower_bytes(inputs))) : nullptr;
  return std::make_shared<Matrix>(Matrix{arena_, data, {}, format, outputs, inputs, panels, bytes, lower, in_pairs});
}

Stage Runner::packing_stage(const Matrix& m, int64_t first, const uint8_t* data, int64_t rows) const {
  const auto f = static_cast<Format>(m.format);
  const int64_t panel_rows = quant::panel_rows(f), panels = (rows + panel_rows - 1) / panel_rows;
  uint8_t* packed = m.data + first / panel_rows * m.panel_bytes;
  uint8_t* lower = m.lower ? m.lower + first / panel_rows * quant::lower_bytes(m.inputs) : nullptr;
  const PackArgs args{f, data, packed, lower, m.in_pairs, rows, m.inputs, panels, m.panel_bytes, kernels_.wide_is_signed};
  return make_stage(pack_stage, args, false);
}

void Runner::pack(Matrix& m, int64_t first, const uint8_t* data, int64_t rows) {
  packing_.wait();
  const Stage stage = packing_stage(m, first, data, rows);
  pool_.run(&stage, 1);
}

void Runner::pack_mapped(Matrix& m, const uint8_t* data) {
  const quant::FormatInfo& f = quant::info(static_cast<Format>(m.format));
  const int64_t row_bytes = m.inputs / f.block_size * f.block_bytes;
  const int64_t step = std::max<int64_t>(1, kPackBytes / (row_bytes * kPackRows)) * kPackRows;
  for (int64_t first = 0; first < m.outputs; first += step) {
    const int64_t rows = std::min(step, m.outputs - first);
    const uint8_t* part = data + first * row_bytes;
    packing_.add(packing_stage(m, first, part, rows), part, static_cast<size_t>(rows * row_bytes));
  }
}

void Runner::submit(const Stage* stages, int num_stages) {
  packing_.wait();
  if (recording_) recording_->stages.insert(recording_->stages.end(), stages, stages + num_stages);
  if (std::all_of(stages, stages + num_stages, [](const Stage& s) { return s.serial; })) {
    for (int i = 0; i < num_stages; ++i) {
      Worker alone = Worker::alone();
      stages[i].run(stages[i].arguments, alone);
    }
    return;
  }
  pool_.run(stages, num_stages);
}

uint8_t* Runner::scratch(size_t bytes) {
  if (recording_) {
    recording_->buffers.push_back(make_buffer(bytes));
    return recording_->buffers.back().get();
  }
  if (scratch_bytes_ < bytes) {
    scratch_ = make_buffer(bytes);
    scratch_bytes_ = bytes;
  }
  return scratch_.get();
}

LinearArgs Runner::linear_args(const float* x, int64_t rows, const Matrix* const* weights, float* const* y, int num_weights) const {
  LinearArgs args = {};
  args.num_weights = num_weights;
  args.x = x;
  args.rows = rows;
  args.inputs = weights[0]->inputs;
  int64_t panels = 0, bytes = 0;
  for (int i = 0; i < num_weights; ++i) {
    const Matrix& w = *weights[i];
    args.weight[i] = w.as_weight(y ? y[i] : nullptr);
    panels += w.num_panels;
    bytes += w.num_bytes();
    args.quantised |= w.is_quantised();
    if (w.in_pairs) args.pairs = kernels_.pairs;
  }
  // The last turns are short, so that threads end together; see Worker::take_share for the first.
  const int64_t by_bytes = std::max<int64_t>(1, kTakeBytes * panels / std::max<int64_t>(1, bytes));
  // Tiles of bf16 pairs are cut from all rows.
  args.row_groups = args.pairs ? 1 : std::max<int64_t>(1, std::min<int64_t>(num_threads(), rows / kRowsOfGroup));
  args.step = rows > 8 ? 1 : std::max<int64_t>(1, std::min(by_bytes, panels / (4 * num_threads())));
  args.pairs_at = args.quantised ? whole_lines(activation_bytes(rows, args.inputs)) : 0;
  return args;
}

void Runner::linear(const float* x, int64_t rows, const Matrix* const* weights, float* const* y, int num_weights) {
  LinearArgs args = linear_args(x, rows, weights, y, num_weights);
  Stage stages[3];
  int n = 0;
  if (args.quantised || args.pairs) {
    const int64_t size = args.pairs_at + (args.pairs ? pair_activation_bytes(rows, args.inputs) : 0);
    if (rows == 1) {
      args.own_stride = whole_lines(size);
      args.own_xq = scratch(static_cast<size_t>(args.own_stride * num_threads()));
    } else {
      args.xq = scratch(static_cast<size_t>(size));
      if (args.quantised) stages[n++] = make_stage(kernels_.quantise, QuantiseArgs{x, args.xq, rows, args.inputs}, false);
      if (args.pairs) stages[n++] = make_stage(args.pairs->round, QuantiseArgs{x, args.xq + args.pairs_at, rows, args.inputs}, false);
    }
  }
  stages[n++] = make_stage(kernels_.linear, args, false);
  submit(stages, n);
}

void Runner::gated_mlp(const float* x, int64_t rows, const Matrix& gate, const Matrix& up, const Matrix& down, int activation, float* y) {
  const Matrix *first[] = {&gate, &up}, *second[] = {&down};
  GatedArgs gated = {};
  gated.linear = linear_args(x, rows, first, nullptr, 2);
  gated.activation = activation;
  LinearArgs last = linear_args(nullptr, rows, second, &y, 1);
  const int64_t x_bytes = gated.linear.quantised ? whole_lines(activation_bytes(rows, gate.inputs)) : 0;
  uint8_t* space = scratch(static_cast<size_t>(x_bytes + (last.quantised ? activation_bytes(rows, down.inputs) : rows * down.inputs * 4)));
  gated.linear.xq = space;
  last.xq = gated.xq = last.quantised ? space + x_bytes : nullptr;
  last.x = gated.out = last.quantised ? nullptr : reinterpret_cast<float*>(space + x_bytes);
  Stage stages[3];
  int n = 0;
  if (gated.linear.quantised) stages[n++] = make_stage(kernels_.quantise, QuantiseArgs{x, space, rows, gate.inputs}, false);
  stages[n++] = make_stage(kernels_.gated, gated, false);
  stages[n++] = make_stage(kernels_.linear, last, false);
  submit(stages, n);
}

void Runner::embed(EmbedArgs args) {
  const Stage s = make_stage(embed_stage, args, args.rows <= 8);
  submit(&s, 1);
}

void Runner::rms_norm(const NormArgs& args) {
  const Stage s = make_stage(kernels_.rms_norm, args, args.groups * args.width <= kSerialElements);
  submit(&s, 1);
}

void Runner::layer_norm(const NormArgs& args) {
  const Stage s = make_stage(kernels_.layer_norm, args, args.groups * args.width <= kSerialElements);
  submit(&s, 1);
}

void Runner::rope(const RopeArgs& args) {
  const Stage s = make_stage(kernels_.rope, args, args.rows * args.heads * args.head_dim <= kSerialElements);
  submit(&s, 1);
}

void Runner::glu(const GluArgs& args) {
  const Stage s = make_stage(kernels_.glu, args, args.size <= kSerialElements / 4);
  submit(&s, 1);
}

void Runner::add(const AddArgs& args) {
  const Stage s = make_stage(kernels_.add, args, args.size <= kSerialElements);
  submit(&s, 1);
}

void Runner::rows(const RowsArgs& args) {
  const Stage s = make_stage(rows_stage, args, args.num_rows * args.width <= 4 * kSerialElements);
  submit(&s, 1);
}

}  // namespace pellucid
