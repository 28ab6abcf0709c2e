// Python's side of the kernels: checks every array once, then hands pointers down.
#include "bind/bind.h"
#include "bind/py_runner.h"

namespace pellucid::bind {
namespace {

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

  nb::class_<HeldProgram>(m, "Program", "Recorded operations over fixed buffers.")
      .def_prop_ro("num_stages", [](const HeldProgram& p) { return p.program->stages.size(); });

  nb::class_<PyRunner> runner(m, "Runner", "A pool of threads and the kernels of one instruction set.");
  bind_matrices(m, runner);
  bind_screen(m, runner);
  runner
      .def("__init__", [](PyRunner* self, int num_threads, std::optional<std::string> isa, std::shared_ptr<Arena> arena) {
        require(num_threads >= 1 && num_threads <= 1024, "num_threads must be 1 to 1024");
        const Kernels* kernels = isa ? find_kernels(isa->c_str()) : &best_kernels();
        if (!kernels) throw nb::value_error(("this machine does not run the instruction set " + *isa).c_str());
        new (self) PyRunner{{}, Runner(num_threads, *kernels, arena ? arena : std::make_shared<Arena>()), {}};
      }, nb::arg("num_threads"), nb::arg("isa").none() = nb::none(), nb::arg("arena").none() = nb::none())
      .def_prop_ro("num_threads", [](const PyRunner& r) { return r.runner.num_threads(); })
      .def_prop_ro("isa", [](const PyRunner& r) { return std::string(r.runner.kernels().name); })
      .def("linear", linear)
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
