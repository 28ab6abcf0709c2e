#include "sampling/cuts.h"

#include <nanobind/ndarray.h>
#include <nanobind/stl/pair.h>

#include <cmath>
#include <stdexcept>
#include <string>

#include "bind/bind.h"
#include "sampling/repeats.h"

namespace nb = nanobind;
namespace s = pellucid::sampling;

namespace {

using Logits = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using OwnLogits = nb::ndarray<float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Ids = nb::ndarray<int32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using ConstIds = nb::ndarray<const int32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Doubles = nb::ndarray<double, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

int64_t size(const auto& array) { return static_cast<int64_t>(array.shape(0)); }

void within(double value, double low, double high, const char* what) {
  if (!(value > low && value <= high)) throw std::invalid_argument(std::string(what) + " is out of its range");
}

}  // namespace

namespace pellucid::bind {

void bind_cuts(nb::module_& m) {
  m.def("entropy", [](const Logits& x) {
    nb::gil_scoped_release release;
    const s::Entropy h = s::entropy(x.data(), size(x));
    return std::pair<double, double>(h.log_normalizer, h.nats);
  }, nb::arg("logits").noconvert(), "(log(sum(exp(logits))), the entropy of the softmax in nats), float64.");

  m.def("probabilities", [](const Logits& x, const Doubles& out) {
    if (size(out) != size(x)) throw std::invalid_argument("probabilities: logits and out differ in length");
    nb::gil_scoped_release release;
    s::probabilities(x.data(), size(x), out.data());
  }, nb::arg("logits").noconvert(), nb::arg("out").noconvert(), "Fills out (float64) with softmax(logits).");

  m.def("keep_epsilon", [](const OwnLogits& x, double epsilon, int64_t min_keep, bool all_ties) {
    within(epsilon, 0.0, 1.0, "keep_epsilon: epsilon");
    nb::gil_scoped_release release;
    s::keep_epsilon(x.data(), size(x), epsilon, min_keep, all_ties);
  }, nb::arg("logits").noconvert(), nb::arg("epsilon"), nb::arg("min_keep") = 1, nb::arg("all_ties") = false,
     "In place: probabilities below epsilon become -inf.");

  m.def("keep_eta", [](const OwnLogits& x, double epsilon, int64_t min_keep, bool all_ties) {
    within(epsilon, 0.0, 1.0, "keep_eta: epsilon");
    nb::gil_scoped_release release;
    s::keep_eta(x.data(), size(x), epsilon, min_keep, all_ties);
  }, nb::arg("logits").noconvert(), nb::arg("epsilon"), nb::arg("min_keep") = 1, nb::arg("all_ties") = false,
     "In place: probabilities below min(epsilon, sqrt(epsilon) exp(-entropy)) become -inf.");

  m.def("keep_surprise", [](const OwnLogits& x, double bits) {
    if (std::isnan(bits)) throw std::invalid_argument("keep_surprise: bits is NaN");
    nb::gil_scoped_release release;
    s::keep_surprise(x.data(), size(x), bits);
  }, nb::arg("logits").noconvert(), nb::arg("bits"), "In place: what surprises by more than `bits` becomes -inf.");

  m.def("keep_top_n_sigma", [](const OwnLogits& x, double factor) {
    within(factor, 0.0, 1e9, "keep_top_n_sigma: factor");
    nb::gil_scoped_release release;
    s::keep_top_n_sigma(x.data(), size(x), factor);
  }, nb::arg("logits").noconvert(), nb::arg("factor"),
     "In place: what is further than `factor` standard deviations below the largest becomes -inf.");

  m.def("keep_typical", [](const OwnLogits& x, double p, int64_t min_keep, bool all_ties) {
    if (!(p > 0.0 && p < 1.0)) throw std::invalid_argument("keep_typical: p must be in (0, 1)");
    nb::gil_scoped_release release;
    s::keep_typical(x.data(), size(x), p, min_keep, all_ties);
  }, nb::arg("logits").noconvert(), nb::arg("p"), nb::arg("min_keep") = 1, nb::arg("all_ties") = false,
     "In place: all but the locally typical set of probability p become -inf.");

  m.def("exclude_top", [](const OwnLogits& x, double threshold, int64_t min_keep) {
    within(threshold, 0.0, 1.0, "exclude_top: threshold");
    nb::gil_scoped_release release;
    s::exclude_top(x.data(), size(x), threshold, min_keep);
  }, nb::arg("logits").noconvert(), nb::arg("threshold"), nb::arg("min_keep") = 1,
     "In place: of the probabilities of at least threshold only the smallest stays.");

  m.def("aim_at_probability", [](const OwnLogits& x, double target) {
    if (!(target >= 0.0 && target <= 1.0)) throw std::invalid_argument("aim_at_probability: target is no probability");
    nb::gil_scoped_release release;
    s::aim_at_probability(x.data(), size(x), target);
  }, nb::arg("logits").noconvert(), nb::arg("target"),
     "In place: 5 - 10 d^2 / (1 + d) with d = |probability - target| / 0.3; -inf stays.");

  m.def("penalize", [](const OwnLogits& x, const ConstIds& ids, int64_t counted_from, float repetition, float presence,
                       float frequency) {
    nb::gil_scoped_release release;
    s::penalize(x.data(), size(x), ids.data(), size(ids), counted_from, {repetition, presence, frequency});
  }, nb::arg("logits").noconvert(), nb::arg("ids").noconvert(), nb::arg("counted_from"), nb::arg("repetition"),
     nb::arg("presence"), nb::arg("frequency"),
     "In place: repetition for what occurs in ids; presence and frequency for what occurs from counted_from on.");

  m.def("suffix_matches", [](const ConstIds& ids, int64_t longest, const Ids& lengths) {
    if (size(lengths) != size(ids)) throw std::invalid_argument("suffix_matches: ids and lengths differ in length");
    nb::gil_scoped_release release;
    s::suffix_matches(ids.data(), size(ids), longest, lengths.data());
  }, nb::arg("ids").noconvert(), nb::arg("longest"), nb::arg("lengths").noconvert(),
     "Fills lengths[i], all but the last, with the longest common suffix of ids[:i + 1] and ids.");

  m.def("penalize_repeats", [](const OwnLogits& x, const ConstIds& ids, int64_t longest, int64_t allowed,
                               double multiplier, double base, const ConstIds& spared) {
    nb::gil_scoped_release release;
    s::penalize_repeats(x.data(), size(x), ids.data(), size(ids), longest, allowed, multiplier, base, spared.data(),
                        size(spared));
  }, nb::arg("logits").noconvert(), nb::arg("ids").noconvert(), nb::arg("longest"), nb::arg("allowed"),
     nb::arg("multiplier"), nb::arg("base"), nb::arg("spared").noconvert(),
     "In place: what prolongs a match of m >= allowed tokens loses multiplier * base^(m - allowed); not ids in spared.");

  m.def("exp", [](double x) {
    within(x, -700.0, 700.0, "exp: x");
    return s::exp_of(x);
  }, nb::arg("x"), "exp(x) from +, -, *, / alone: the same bits on every machine. -700 < x <= 700.");
  m.def("log", [](double x) {
    within(x, 1e-300, 1e300, "log: x");
    return s::log_of(x);
  }, nb::arg("x"), "log(x) from +, -, *, / alone: the same bits on every machine. 1e-300 < x <= 1e300.");
}

}  // namespace pellucid::bind
