// Python's runner, and what its bindings share: arrays as they come in, and checks of them.
#pragma once
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/unique_ptr.h>
#include <nanobind/stl/vector.h>

#include <optional>
#include <stdexcept>

#include "quant/packed.h"
#include "runner.h"

namespace pellucid::bind {

namespace nb = nanobind;

using Floats = nb::ndarray<float, nb::c_contig, nb::device::cpu>;
using Ints = nb::ndarray<int32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Table = nb::ndarray<int32_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using RawBytes = nb::ndarray<const uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Anything = nb::ndarray<nb::device::cpu>;

inline void require(bool condition, const char* message) {
  if (!condition) throw nb::value_error(message);
}

inline int64_t rows_of(const Floats& x) { return x.ndim() == 0 ? 0 : static_cast<int64_t>(x.shape(0)); }
inline int64_t width_of(const Floats& x) { return x.ndim() && x.shape(0) ? static_cast<int64_t>(x.size() / x.shape(0)) : 0; }
inline int64_t size_of(const Floats& x) { return static_cast<int64_t>(x.size()); }

inline void check_range(const int32_t* values, int64_t n, int64_t limit, const char* message) {
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

inline const quant::FormatInfo& format_of(const std::string& label) {
  const quant::FormatInfo* f = quant::find_format(label);
  if (!f) throw nb::value_error(("unknown weight format " + label).c_str());
  return *f;
}

inline void check_bytes(const RawBytes& data, const quant::FormatInfo& f, int64_t rows, int64_t width) {
  require(rows > 0 && width > 0 && width % f.block_size == 0, "a matrix must have rows, and rows of whole blocks");
  require(width / f.block_size <= INT64_MAX / f.block_bytes / rows, "matrix too large");
  require(static_cast<int64_t>(data.size()) == rows * (width / f.block_size) * f.block_bytes,
          "the bytes do not match the matrix's shape");
}

// Each adds what it has to the runner; before the others that name its types.
void bind_matrices(nb::module_& m, nb::class_<PyRunner>& runner);
void bind_screen(nb::module_& m, nb::class_<PyRunner>& runner);

}  // namespace pellucid::bind
