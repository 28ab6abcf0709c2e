// The certified partial head: bounds of logits, and choices from them.
#include "screen.h"

#include "bind/py_runner.h"

namespace pellucid::bind {

void bind_screen(nb::module_& m, nb::class_<PyRunner>& runner) {
  nb::class_<Screen>(m, "Screen", "Bounds of a few rows of logits, and what has been computed exactly of it (native/screen.h).")
      .def_prop_ro("of_peaks", [](const Screen& s) { return s.of_peaks(); }, "Whether bounds are the peaks of exact logits; else of half of the bits.")
      .def_prop_ro("num_panels", [](const Screen& s) { return s.matrix->num_panels; }, "Of 16 logits each.")
      .def_prop_ro("num_rescored", [](const Screen& s) { return s.num_rescored; }, "Panels that the last choice computed exactly.")
      .def("upper", [](const Screen& s, int row) {
        require(row >= 0 && row < s.num_rows, "upper: there is no such row");
        auto* copy = new std::vector<float>(static_cast<size_t>(s.matrix->outputs));
        for (int64_t i = 0; i < s.matrix->outputs; ++i)
          (*copy)[static_cast<size_t>(i)] = s.upper_of(row)[s.bound_of(i / quant::kLanes) * quant::kLanes + i % quant::kLanes];
        nb::capsule owner(copy, [](void* p) noexcept { delete static_cast<std::vector<float>*>(p); });
        return nb::ndarray<nb::numpy, float, nb::ndim<1>>(copy->data(), {copy->size()}, owner);
      }, nb::arg("row") = 0, "float32 [outputs], a copy: no exact logit of the row is larger.");

  runner
      .def("make_screen", [](PyRunner& r, std::shared_ptr<Matrix> matrix, int num_rows) {
        require(matrix->lower != nullptr, "make_screen: the matrix is not split");
        require(num_rows >= 1 && num_rows <= kMaxScreenRows, "make_screen: num_rows must be 1 to 8");
        return std::make_unique<Screen>(std::move(matrix), r.runner.num_threads(), num_rows);
      }, nb::arg("matrix"), nb::arg("num_rows") = 1)
      .def("screen", [](PyRunner& r, Floats x, nb::handle_t<Screen> screen) {
        Screen& s = nb::cast<Screen&>(screen);
        require(!s.of_peaks(), "screen: the screen is of peaks");
        require(size_of(x) == s.num_rows * s.matrix->inputs, "screen: x is not num_rows rows of the matrix's inputs");
        r.keep(x, nb::borrow(screen));
        nb::gil_scoped_release release;
        r.runner.screen(x.data(), s);
      })
      .def("make_peaks", [](PyRunner& r, std::shared_ptr<Matrix> matrix, int num_rows) {
        require(matrix->is_quantised(), "make_peaks: the matrix is not quantised");
        require(num_rows >= 1, "make_peaks: num_rows must be 1 or more");
        return std::make_unique<Screen>(std::move(matrix), r.runner.num_threads(), num_rows, Screen::Kind::kPeaks);
      }, nb::arg("matrix"), nb::arg("num_rows"))
      .def("peaks", [](PyRunner& r, Floats x, nb::handle_t<Screen> screen) {
        Screen& s = nb::cast<Screen&>(screen);
        require(s.of_peaks(), "peaks: the screen is of halves");
        require(size_of(x) == s.num_rows * s.matrix->inputs, "peaks: x is not num_rows rows of the matrix's inputs");
        r.keep(x, nb::borrow(screen));
        nb::gil_scoped_release release;
        r.runner.peaks(x.data(), s);
      })
      .def("settle", [](PyRunner& r, Screen& s, int row, float temperature, double min_p, uint64_t seed, uint32_t sample, uint32_t position,
                        uint32_t stream) {
        require(row >= 0 && row < s.num_rows, "settle: there is no such row");
        require(temperature >= 0.0f && min_p >= 0.0 && min_p <= 1.0, "settle: temperature >= 0 and min_p in [0, 1]");
        nb::gil_scoped_release release;
        return r.runner.settle(s, row, {temperature, min_p, {seed, sample, position, stream}});
      }, nb::arg("screen"), nb::arg("row"), nb::arg("temperature"), nb::arg("min_p"), nb::arg("seed"), nb::arg("sample"), nb::arg("position"),
         nb::arg("stream"), "The id that the exact logits would give; -2: a bound is not finite, so look at the logits.");
}

}  // namespace pellucid::bind
