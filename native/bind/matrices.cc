// Packed matrices: their space, and their packing from a file's bytes.
#include "bind/py_runner.h"

namespace pellucid::bind {
namespace {

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

}  // namespace

void bind_matrices(nb::module_& m, nb::class_<PyRunner>& runner) {
  nb::class_<Matrix>(m, "Matrix", "A packed matrix.")
      .def_prop_ro("shape", [](const Matrix& w) { return nb::make_tuple(w.outputs, w.inputs); })
      .def_prop_ro("format", [](const Matrix& w) { return std::string(quant::info(static_cast<quant::Format>(w.format)).name); })
      .def_prop_ro("in_pairs", [](const Matrix& w) { return w.in_pairs; })
      .def_prop_ro("is_quantised", [](const Matrix& w) { return w.is_quantised(); })
      .def_prop_ro("is_split", [](const Matrix& w) { return w.lower != nullptr; })
      .def_prop_ro("lower_bytes", [](const Matrix& w) { return w.lower ? w.num_panels * quant::lower_bytes(w.inputs) : 0; })
      .def_prop_ro("num_bytes", [](const Matrix& w) { return w.num_bytes(); });

  runner
      .def_prop_ro("packed_bytes", [](const PyRunner& r) { return r.runner.arena()->used(); })
      .def("allocate", allocate, nb::arg("format"), nb::arg("outputs"), nb::arg("inputs"), nb::arg("bias").none(),
           nb::arg("split") = false, nb::arg("in_pairs") = false,
           "in_pairs: BF16 for activations that `linear` rounds to bf16, too.")
      .def("pack_mapped", pack_mapped, nb::arg("matrix"), nb::arg("data"),
           "Pack all rows later, on a thread of its own; `data` lies in a file's map, whose pages are given back.")
      .def("finish_packing", finish_packing, "Wait for what `pack_mapped` began, and let go of its data.")
      .def("pack_rows", pack_rows, nb::arg("matrix"), nb::arg("first"), nb::arg("data"));
}

}  // namespace pellucid::bind
