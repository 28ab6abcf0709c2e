// Python's side of the kernels: checks every array once, then hands pointers down.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/unique_ptr.h>
#include <nanobind/stl/vector.h>

#include <optional>
#include <stdexcept>

#include "bind/bind.h"
#include "quant/packed.h"
#include "runner.h"
#include "screen.h"
#include "temporaries.h"

namespace nb = nanobind;

namespace pellucid::bind {
namespace {

using Floats = nb::ndarray<float, nb::c_contig, nb::device::cpu>;
using Ints = nb::ndarray<int32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Table = nb::ndarray<int32_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using RawBytes = nb::ndarray<const uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Anything = nb::ndarray<nb::device::cpu>;

void require(bool condition, const char* message) {
  if (!condition) throw nb::value_error(message);
}

int64_t rows_of(const Floats& x) { return x.ndim() == 0 ? 0 : static_cast<int64_t>(x.shape(0)); }
int64_t width_of(const Floats& x) { return x.ndim() && x.shape(0) ? static_cast<int64_t>(x.size() / x.shape(0)) : 0; }
int64_t size_of(const Floats& x) { return static_cast<int64_t>(x.size()); }

void check_range(const int32_t* values, int64_t n, int64_t limit, const char* message) {
  for (int64_t i = 0; i < n; ++i) require(values[i] >= 0 && values[i] < limit, message);
}

// A recorded program with the arrays that it reads and writes.
struct HeldProgram {
  std::unique_ptr<Program> program;
  std::vector<nb::object> arrays;
};

// The runner and, while recording, the arrays to keep alive.
struct PyRunner {
  std::vector<nb::object> sources;  // what is being packed; before the runner, so that it outlives the packing
  Runner runner;
  std::vector<nb::object> arrays;

  template <class... A> void keep(const A&... a) {
    if (runner.is_recording()) (arrays.push_back(nb::cast(a)), ...);
  }
};

// An array of a pass; its memory goes back when nobody holds it.
nb::ndarray<nb::numpy, float> empty(const std::shared_ptr<Temporaries>& self, const std::vector<int64_t>& shape) {
  struct Held {
    std::shared_ptr<Temporaries> from;
    Temporaries::Block block;
  };
  int64_t count = 1;
  size_t sizes[3];
  require(shape.size() >= 1 && shape.size() <= 3, "empty: one to three dimensions");
  for (size_t i = 0; i < shape.size(); ++i) {
    require(shape[i] >= 0 && shape[i] <= INT32_MAX && count * shape[i] <= int64_t{1} << 40, "empty: sizes from 0 on, of a terabyte at most");
    count *= shape[i];
    sizes[i] = static_cast<size_t>(shape[i]);
  }
  auto held = std::make_unique<Held>(Held{self, self->take(static_cast<size_t>(count) * 4)});
  void* data = held->block.memory.get();
  nb::capsule owner(held.get(), [](void* p) noexcept {
    const std::unique_ptr<Held> back(static_cast<Held*>(p));
    back->from->give_back(std::move(back->block));
  });
  held.release();
  return {data, shape.size(), sizes, owner};
}

const quant::FormatInfo& format_of(const std::string& label) {
  const quant::FormatInfo* f = quant::find_format(label);
  if (!f) throw nb::value_error(("unknown weight format " + label).c_str());
  return *f;
}

void check_bytes(const RawBytes& data, const quant::FormatInfo& f, int64_t rows, int64_t width) {
  require(rows > 0 && width > 0 && width % f.block_size == 0, "a matrix must have rows, and rows of whole blocks");
  require(width / f.block_size <= INT64_MAX / f.block_bytes / rows, "matrix too large");
  require(static_cast<int64_t>(data.size()) == rows * (width / f.block_size) * f.block_bytes,
          "the bytes do not match the matrix's shape");
}

std::shared_ptr<Matrix> allocate(PyRunner& self, const std::string& label, int64_t outputs, int64_t inputs,
                                 std::optional<Floats> bias, bool split, bool in_pairs) {
  const quant::FormatInfo& f = format_of(label);
  require(outputs > 0 && inputs > 0 && inputs % f.block_size == 0, "a matrix must have rows, and rows of whole blocks");
  require(inputs <= INT32_MAX && outputs <= INT32_MAX && outputs <= INT64_MAX / 8 / inputs, "matrix too large");
  require(!bias || size_of(*bias) == outputs, "a bias needs one value for each output");
  require(!split || quant::can_split(f.format), "this format cannot be split");
  require(!in_pairs || quant::can_pair(f.format), "only BF16 lies in pairs");
  std::shared_ptr<Matrix> m = self.runner.allocate(static_cast<int>(f.format), outputs, inputs, split, in_pairs);
  if (bias) m->bias.assign(bias->data(), bias->data() + outputs);
  if (bias && split) m->bias.resize(static_cast<size_t>(m->num_panels * quant::kLanes));
  return m;
}

void pack_rows(PyRunner& self, Matrix& m, int64_t first, RawBytes data) {
  const quant::FormatInfo& f = quant::info(static_cast<quant::Format>(m.format));
  const int64_t row_bytes = m.inputs / f.block_size * f.block_bytes, rows = static_cast<int64_t>(data.size()) / row_bytes;
  require(rows > 0 && rows * row_bytes == static_cast<int64_t>(data.size()), "the bytes are not whole rows of the matrix");
  require(first >= 0 && first % kPackRows == 0 && rows <= m.outputs - first, "the rows are outside the matrix");
  require(rows % kPackRows == 0 || first + rows == m.outputs, "rows are packed 32 at a time");
  nb::gil_scoped_release release;
  self.runner.pack(m, first, data.data(), rows);
}

void pack_mapped(PyRunner& self, std::shared_ptr<Matrix> m, RawBytes data) {
  check_bytes(data, quant::info(static_cast<quant::Format>(m->format)), m->outputs, m->inputs);
  self.sources.push_back(nb::cast(data));
  self.sources.push_back(nb::cast(m));
  self.runner.pack_mapped(*m, data.data());
}

void finish_packing(PyRunner& self) {
  {
    nb::gil_scoped_release release;
    self.runner.finish_packing();
    self.runner.arena()->settle();
  }
  self.sources.clear();
}

void linear(PyRunner& self, Floats x, const std::vector<std::shared_ptr<Matrix>>& weights, const std::vector<Floats>& y) {
  const int n = static_cast<int>(weights.size());
  require(n >= 1 && n <= kMaxWeights && y.size() == weights.size(), "linear takes one to four matrices, with as many outputs");
  const Matrix* w[kMaxWeights];
  float* out[kMaxWeights];
  const int64_t rows = rows_of(x);
  for (int i = 0; i < n; ++i) {
    w[i] = weights[static_cast<size_t>(i)].get();
    out[i] = y[static_cast<size_t>(i)].data();
    require(rows * w[i]->inputs == size_of(x), "linear: x is not [rows, inputs]");
    require(rows * w[i]->outputs == size_of(y[static_cast<size_t>(i)]), "linear: an output is not [rows, outputs]");
    self.keep(y[static_cast<size_t>(i)], weights[static_cast<size_t>(i)]);
  }
  self.keep(x);
  if (rows == 0) return;
  nb::gil_scoped_release release;
  self.runner.linear(x.data(), rows, w, out, n);
}

void gated_mlp(PyRunner& self, Floats x, std::shared_ptr<Matrix> gate, std::shared_ptr<Matrix> up, std::shared_ptr<Matrix> down,
               int activation, Floats y) {
  const int64_t rows = rows_of(x);
  require(rows * gate->inputs == size_of(x) && gate->inputs == up->inputs, "gated_mlp: x is not [rows, inputs]");
  require(gate->outputs == up->outputs && gate->outputs == down->inputs, "gated_mlp: the matrices do not fit one another");
  require(rows * down->outputs == size_of(y), "gated_mlp: y is not [rows, outputs]");
  require(!gate->in_pairs && !up->in_pairs && !down->in_pairs, "gated_mlp: not for matrices in pairs");
  require(!gate->lower && !up->lower && !down->lower, "gated_mlp: not for split matrices");
  require(activation >= 0 && activation <= 2, "gated_mlp: unknown activation");
  self.keep(x, gate, up, down, y);
  if (rows == 0) return;
  nb::gil_scoped_release release;
  self.runner.gated_mlp(x.data(), rows, *gate, *up, *down, activation, y.data());
}

void embed(PyRunner& self, const std::string& label, RawBytes table, int64_t table_rows, Ints ids, float scale, Floats out) {
  const quant::FormatInfo& f = format_of(label);
  const int64_t rows = static_cast<int64_t>(ids.size()), width = width_of(out);
  require(rows == rows_of(out), "embed: out is not [rows, width]");
  if (rows == 0) return;
  check_bytes(table, f, table_rows, width);
  check_range(ids.data(), rows, table_rows, "embed: a token id is outside the vocabulary");
  self.keep(table, ids, out);
  nb::gil_scoped_release release;
  self.runner.embed({ids.data(), out.data(), table.data(), rows, width, width / f.block_size * f.block_bytes,
                     static_cast<int>(f.format), scale});
}

NormArgs norm_args(const Floats& x, const Floats& weight, const float* bias, float eps, const Floats& out) {
  const int64_t width = size_of(weight);
  require(width > 0 && size_of(x) % width == 0 && size_of(x) == size_of(out), "norm: x is not made of groups of the weight's width");
  return {x.data(), weight.data(), bias, out.data(), size_of(x) / width, width, eps};
}

void rms_norm(PyRunner& self, Floats x, Floats weight, float eps, Floats out) {
  const NormArgs args = norm_args(x, weight, nullptr, eps, out);
  self.keep(x, weight, out);
  nb::gil_scoped_release release;
  self.runner.rms_norm(args);
}

void layer_norm(PyRunner& self, Floats x, Floats weight, Floats bias, float eps, Floats out) {
  require(size_of(bias) == size_of(weight), "layer_norm: weight and bias differ in size");
  const NormArgs args = norm_args(x, weight, bias.data(), eps, out);
  self.keep(x, weight, bias, out);
  nb::gil_scoped_release release;
  self.runner.layer_norm(args);
}

void rope(PyRunner& self, Floats x, Ints positions, Floats cosines, Floats sines, int64_t head_dim, bool interleaved, Floats out) {
  const int64_t rows = rows_of(x), half = width_of(cosines);
  require(static_cast<int64_t>(positions.size()) == rows && size_of(out) == size_of(x), "rope: shapes differ");
  require(size_of(cosines) == size_of(sines) && half > 0 && 2 * half <= head_dim, "rope: the table does not fit the head");
  if (rows == 0) return;
  require(width_of(x) % head_dim == 0, "rope: x is not [rows, heads * head_dim]");
  check_range(positions.data(), rows, rows_of(cosines), "rope: a position is outside the table");
  self.keep(x, positions, cosines, sines, out);
  nb::gil_scoped_release release;
  self.runner.rope({x.data(), positions.data(), cosines.data(), sines.data(), out.data(), rows, width_of(x) / head_dim,
                    head_dim, 2 * half, interleaved});
}

void glu(PyRunner& self, Floats gate, std::optional<Floats> up, int activation, Floats out) {
  require(size_of(gate) == size_of(out) && (!up || size_of(*up) == size_of(gate)), "glu: shapes differ");
  require(activation >= 0 && activation <= 2, "glu: unknown activation");
  self.keep(gate, out);
  if (up) self.keep(*up);
  nb::gil_scoped_release release;
  self.runner.glu({gate.data(), up ? up->data() : nullptr, out.data(), size_of(gate), activation});
}

void add(PyRunner& self, Floats x, Floats y, Floats out) {
  if (size_of(x) == 0 && size_of(y) == 0 && size_of(out) == 0) return;
  require(size_of(x) == size_of(out) && size_of(y) > 0 && size_of(x) % size_of(y) == 0, "add: shapes differ");
  self.keep(x, y, out);
  nb::gil_scoped_release release;
  self.runner.add({x.data(), y.data(), out.data(), size_of(x), size_of(y)});
}

void rows(PyRunner& self, Floats x, Ints index, Floats out) {
  const int64_t n = static_cast<int64_t>(index.size());
  require(rows_of(out) == n, "rows: out is not [len(index), width]");
  if (n == 0) return;
  require(width_of(out) == width_of(x), "rows: widths differ");
  check_range(index.data(), n, rows_of(x), "rows: an index is outside x");
  self.keep(x, index, out);
  nb::gil_scoped_release release;
  self.runner.rows({x.data(), index.data(), out.data(), n, width_of(x)});
}

// The cache of one layer, [block, ...]: each block's bytes lie together, blocks at any equal distance.
int64_t block_stride(const Anything& cache, int64_t block_bytes) {
  int64_t dense = static_cast<int64_t>(cache.itemsize());
  require(cache.ndim() >= 2, "attention: the cache is not [blocks, ...]");
  for (size_t axis = cache.ndim() - 1; axis > 0; --axis) {
    require(cache.shape(axis) == 1 || cache.stride(axis) * static_cast<int64_t>(cache.itemsize()) == dense,
            "attention: a block of the cache is not contiguous");
    dense *= static_cast<int64_t>(cache.shape(axis));
  }
  require(dense == block_bytes, "attention: the cache's blocks do not fit its format, kv_heads, head_dim and block_size");
  return cache.stride(0) * static_cast<int64_t>(cache.itemsize());
}

void attention(PyRunner& self, Floats q, Floats k, Floats v, Anything k_cache, Anything v_cache, Ints positions, Ints slots,
               Ints sequence_ids, Table block_tables, int64_t kv_heads, int64_t head_dim, int64_t block_size, int64_t window,
               float scale, int format, Floats out) {
  const int64_t n = static_cast<int64_t>(positions.size());
  if (n == 0) return;
  require(head_dim >= 1 && head_dim <= kMaxHeadDim, "attention: head_dim must be 1 to 1024");
  require(kv_heads >= 1 && block_size >= 16 && block_size % 16 == 0 && kRun % block_size == 0 && window >= 0,
          "attention: block_size must be 16, 32, 64, 128 or 256");
  require(size_of(q) % (n * head_dim) == 0 && size_of(out) == size_of(q), "attention: q or out is not [rows, heads * head_dim]");
  const int64_t heads = size_of(q) / (n * head_dim);
  require(heads % kv_heads == 0, "attention: heads must be a multiple of kv_heads");
  require(size_of(k) == n * kv_heads * head_dim && size_of(v) == size_of(k), "attention: k or v is not [rows, kv_heads * head_dim]");
  require(format >= 0 && format < kNumKvFormats, "attention: unknown format of the cache");
  const auto kv_format = static_cast<KvFormat>(format);
  const int64_t groups = kv_heads * (block_size / kPositionGroup), blocks = static_cast<int64_t>(k_cache.shape(0));
  const int64_t stride = block_stride(k_cache, groups * key_group_bytes(kv_format, head_dim));
  require(block_stride(v_cache, groups * value_group_bytes(kv_format, head_dim)) == stride &&
              static_cast<int64_t>(v_cache.shape(0)) == blocks,
          "attention: K and V of the cache differ in blocks");
  require(static_cast<int64_t>(slots.size()) == n && static_cast<int64_t>(sequence_ids.size()) == n, "attention: batch arrays differ in length");
  const int64_t max_blocks = static_cast<int64_t>(block_tables.shape(1));
  check_range(slots.data(), n, blocks * block_size, "attention: a slot is outside the cache");
  check_range(sequence_ids.data(), n, static_cast<int64_t>(block_tables.shape(0)), "attention: a sequence has no block table");
  check_range(positions.data(), n, max_blocks * block_size, "attention: a position is outside its block table");
  check_range(block_tables.data(), static_cast<int64_t>(block_tables.size()), blocks, "attention: a block is outside the cache");
  AttentionArgs args = {};
  args.q = q.data();
  args.k = k.data();
  args.v = v.data();
  args.out = out.data();
  args.k_cache = static_cast<uint8_t*>(k_cache.data());
  args.v_cache = static_cast<uint8_t*>(v_cache.data());
  args.positions = positions.data();
  args.slots = slots.data();
  args.sequence_ids = sequence_ids.data();
  args.block_tables = block_tables.data();
  args.block_stride = stride;
  args.rows = n;
  args.heads = heads;
  args.kv_heads = kv_heads;
  args.head_dim = head_dim;
  args.max_blocks = max_blocks;
  args.block_size = block_size;
  args.window = window;
  args.scale = scale;
  args.format = kv_format;
  self.keep(q, k, v, k_cache, v_cache, positions, slots, sequence_ids, block_tables, out);
  nb::gil_scoped_release release;
  self.runner.attention(args, max_blocks * block_size);
}

}  // namespace

void bind_ops(nb::module_& m) {
  m.def("instruction_sets", [] {
    std::vector<std::string> names;
    for (const char* const* n = available_kernels(); *n; ++n) names.emplace_back(*n);
    return names;
  }, "The instruction sets that this machine runs, best first.");

  m.def("largest", [](Ints values) {
    int32_t top = -1;
    for (size_t i = 0; i < values.size(); ++i) top = values.data()[i] > top ? values.data()[i] : top;
    return top;
  }, "The largest of some non-negative int32; -1 if there are none.");

  m.def("check_range", [](Ints values, int64_t limit, const char* what) {
    for (size_t i = 0; i < values.size(); ++i)
      if (values.data()[i] < 0 || values.data()[i] >= limit)
        throw nb::value_error((std::string(what) + " of the batch is " + std::to_string(values.data()[i]) + ", expected 0 to " +
                               std::to_string(limit - 1)).c_str());
  }, "ValueError unless all values are in [0, limit).");

  nb::class_<Matrix>(m, "Matrix", "A packed matrix.")
      .def_prop_ro("shape", [](const Matrix& w) { return nb::make_tuple(w.outputs, w.inputs); })
      .def_prop_ro("format", [](const Matrix& w) { return std::string(quant::info(static_cast<quant::Format>(w.format)).name); })
      .def_prop_ro("in_pairs", [](const Matrix& w) { return w.in_pairs; })
      .def_prop_ro("is_split", [](const Matrix& w) { return w.lower != nullptr; })
      .def_prop_ro("lower_bytes", [](const Matrix& w) { return w.lower ? w.num_panels * quant::lower_bytes(w.inputs) : 0; })
      .def_prop_ro("num_bytes", [](const Matrix& w) { return w.num_bytes(); });

  nb::class_<Screen>(m, "Screen", "Bounds of a few rows of logits, and what has been computed exactly of it (native/screen.h).")
      .def_prop_ro("num_panels", [](const Screen& s) { return s.matrix->num_panels; }, "Of 16 logits each.")
      .def_prop_ro("num_rescored", [](const Screen& s) { return s.num_rescored; }, "Panels that the last choice computed exactly.")
      .def("upper", [](const Screen& s, int row) {
        require(row >= 0 && row < s.num_rows, "upper: there is no such row");
        auto* copy = new std::vector<float>(s.upper_of(row), s.upper_of(row) + s.matrix->outputs);
        nb::capsule owner(copy, [](void* p) noexcept { delete static_cast<std::vector<float>*>(p); });
        return nb::ndarray<nb::numpy, float, nb::ndim<1>>(copy->data(), {copy->size()}, owner);
      }, nb::arg("row") = 0, "float32 [outputs], a copy: no exact logit of the row is larger.");

  nb::class_<HeldProgram>(m, "Program", "Recorded operations over fixed buffers.")
      .def_prop_ro("num_stages", [](const HeldProgram& p) { return p.program->stages.size(); });

  nb::class_<Temporaries>(m, "Temporaries", "Memory of arrays that live within a pass, used again when nobody holds them.")
      .def("__init__", [](Temporaries* self, int64_t limit) {
        require(limit >= 0, "limit must be 0 or more bytes");
        new (self) Temporaries(static_cast<size_t>(limit));
      }, nb::arg("limit"), "limit: bytes that are kept, at most.")
      .def("empty", empty, nb::arg("shape"), "float32 [shape], 64-byte aligned, not cleared.")
      .def_prop_ro("num_kept", [](const Temporaries& t) { return t.num_kept(); }, "Bytes that wait to be used again.");

  nb::class_<Arena>(m, "Arena", "Memory for packed weights, touched ahead of its use by a thread of its own.")
      .def("__init__", [](Arena* self, int64_t expected) {
        require(expected >= 0 && expected <= (int64_t{1} << 46), "expected must be 0 to 2**46 bytes");
        new (self) Arena(static_cast<size_t>(expected));
      }, nb::arg("expected"))
      .def_prop_ro("used", [](const Arena& a) { return a.used(); });

  nb::class_<PyRunner>(m, "Runner", "A pool of threads and the kernels of one instruction set.")
      .def("__init__", [](PyRunner* self, int num_threads, std::optional<std::string> isa, std::shared_ptr<Arena> arena) {
        require(num_threads >= 1 && num_threads <= 1024, "num_threads must be 1 to 1024");
        const Kernels* kernels = isa ? find_kernels(isa->c_str()) : &best_kernels();
        if (!kernels) throw nb::value_error(("this machine does not run the instruction set " + *isa).c_str());
        new (self) PyRunner{{}, Runner(num_threads, *kernels, arena ? arena : std::make_shared<Arena>()), {}};
      }, nb::arg("num_threads"), nb::arg("isa").none() = nb::none(), nb::arg("arena").none() = nb::none())
      .def_prop_ro("num_threads", [](const PyRunner& r) { return r.runner.num_threads(); })
      .def_prop_ro("isa", [](const PyRunner& r) { return std::string(r.runner.kernels().name); })
      .def_prop_ro("packed_bytes", [](const PyRunner& r) { return r.runner.arena()->used(); })
      .def("allocate", allocate, nb::arg("format"), nb::arg("outputs"), nb::arg("inputs"), nb::arg("bias").none(),
           nb::arg("split") = false, nb::arg("in_pairs") = false,
           "in_pairs: BF16 for activations that `linear` rounds to bf16, too.")
      .def("pack_mapped", pack_mapped, nb::arg("matrix"), nb::arg("data"),
           "Pack all rows later, on a thread of its own; `data` lies in a file's map, whose pages are given back.")
      .def("finish_packing", finish_packing, "Wait for what `pack_mapped` began, and let go of its data.")
      .def("pack_rows", pack_rows, nb::arg("matrix"), nb::arg("first"), nb::arg("data"))
      .def("linear", linear)
      .def("make_screen", [](PyRunner& r, std::shared_ptr<Matrix> matrix, int num_rows) {
        require(matrix->lower != nullptr, "make_screen: the matrix is not split");
        require(num_rows >= 1 && num_rows <= kMaxScreenRows, "make_screen: num_rows must be 1 to 8");
        return std::make_unique<Screen>(std::move(matrix), r.runner.num_threads(), num_rows);
      }, nb::arg("matrix"), nb::arg("num_rows") = 1)
      .def("screen", [](PyRunner& r, Floats x, nb::handle_t<Screen> screen) {
        Screen& s = nb::cast<Screen&>(screen);
        require(size_of(x) == s.num_rows * s.matrix->inputs, "screen: x is not num_rows rows of the matrix's inputs");
        r.keep(x, nb::borrow(screen));
        nb::gil_scoped_release release;
        r.runner.screen(x.data(), s);
      })
      .def("settle", [](PyRunner& r, Screen& s, int row, float temperature, double min_p, uint64_t seed, uint32_t sample, uint32_t position,
                        uint32_t stream) {
        require(row >= 0 && row < s.num_rows, "settle: there is no such row");
        require(temperature >= 0.0f && min_p >= 0.0 && min_p <= 1.0, "settle: temperature >= 0 and min_p in [0, 1]");
        nb::gil_scoped_release release;
        return r.runner.settle(s, row, {temperature, min_p, {seed, sample, position, stream}});
      }, nb::arg("screen"), nb::arg("row"), nb::arg("temperature"), nb::arg("min_p"), nb::arg("seed"), nb::arg("sample"), nb::arg("position"),
         nb::arg("stream"), "The id that the exact logits would give; -2: a bound is not finite, so look at the logits.")
      .def("gated_mlp", gated_mlp, nb::arg("x"), nb::arg("gate"), nb::arg("up"), nb::arg("down"), nb::arg("activation"), nb::arg("y"))
      .def("embed", embed)
      .def("rms_norm", rms_norm)
      .def("layer_norm", layer_norm)
      .def("rope", rope)
      .def("glu", glu, nb::arg("gate"), nb::arg("up").none(), nb::arg("activation"), nb::arg("out"))
      .def("add", add)
      .def("rows", rows)
      .def("attention", attention)
      .def("probe_read", [](PyRunner& r, int64_t bytes) {
        require(bytes >= (1 << 20) && bytes <= (int64_t{8} << 30), "probe_read: 1 MiB to 8 GiB");
        nb::gil_scoped_release release;
        return r.runner.probe_read(bytes);
      }, "Bytes a second, read in order by all threads.")
      .def("probe_dot", [](PyRunner& r, int64_t turns) {
        require(turns >= 1, "probe_dot: at least one turn");
        nb::gil_scoped_release release;
        return r.runner.probe_dot(turns);
      }, "8-bit operations a second of all threads; a product and its addition are two.")
      .def("start_recording", [](PyRunner& r) { r.runner.start_recording(); r.arrays.clear(); })
      .def("stop_recording", [](PyRunner& r) {
        require(r.runner.is_recording(), "nothing is being recorded");
        auto held = std::make_unique<HeldProgram>();
        held->program = r.runner.stop_recording();
        held->arrays = std::move(r.arrays);
        r.arrays.clear();
        return held;
      })
      .def("run", [](PyRunner& r, const HeldProgram& p) {
        nb::gil_scoped_release release;
        r.runner.run(*p.program);
      });
}

}  // namespace pellucid::bind
