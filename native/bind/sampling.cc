#include <nanobind/ndarray.h>

#include <stdexcept>

#include "bind/bind.h"
#include "sampling/cuts.h"
#include "sampling/repeats.h"
#include "sampling/sampling.h"

namespace nb = nanobind;
namespace s = pellucid::sampling;

namespace {

using Logits = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using OwnLogits = nb::ndarray<float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Ids = nb::ndarray<int32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using ConstIds = nb::ndarray<const int32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Doubles = nb::ndarray<double, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Words = nb::ndarray<const uint32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using OwnWords = nb::ndarray<uint32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

int64_t size(const auto& array) { return static_cast<int64_t>(array.shape(0)); }

}  // namespace

namespace pellucid::bind {

void bind_sampling(nb::module_& m) {
  m.def("argmax", [](const Logits& x) {
    nb::gil_scoped_release release;
    return s::maximum(x.data(), size(x)).id;
  }, nb::arg("logits").noconvert(), "The id of the largest logit (the lowest of equals); -1 if all are -inf.");

  m.def("log_normalizer", [](const Logits& x) {
    nb::gil_scoped_release release;
    return s::log_normalizer(x.data(), size(x));
  }, nb::arg("logits").noconvert(), "log(sum(exp(logits))), float64, in one fixed order.");

  m.def("top_k", [](const Logits& x, const Ids& ids) {
    if (size(ids) > size(x)) throw std::invalid_argument("top_k: more ids asked for than there are logits");
    nb::gil_scoped_release release;
    s::top_k(x.data(), size(x), size(ids), ids.data());
  }, nb::arg("logits").noconvert(), nb::arg("ids").noconvert(),
     "Fills ids (int32) with those of the largest logits, by logit descending, then id ascending.");

  m.def("keep_top_k", [](const OwnLogits& x, int64_t k, bool all_ties) {
    if (k < 1) throw std::invalid_argument("keep_top_k: k must be at least 1");
    nb::gil_scoped_release release;
    s::keep_top_k(x.data(), size(x), k, all_ties);
  }, nb::arg("logits").noconvert(), nb::arg("k"), nb::arg("all_ties") = false,
     "In place: all but the k largest become -inf; all_ties: what equals the k-th stays too.");

  m.def("keep_top_p", [](const OwnLogits& x, double p, int64_t min_keep) {
    if (!(p > 0.0 && p <= 1.0)) throw std::invalid_argument("keep_top_p: p must be in (0, 1]");
    nb::gil_scoped_release release;
    s::keep_top_p(x.data(), size(x), p, min_keep);
  }, nb::arg("logits").noconvert(), nb::arg("p"), nb::arg("min_keep") = 1,
     "In place: all but the nucleus of probability p become -inf.");

  m.def("keep_min_p", [](const OwnLogits& x, double p, int64_t min_keep) {
    if (!(p > 0.0 && p <= 1.0)) throw std::invalid_argument("keep_min_p: p must be in (0, 1]");
    nb::gil_scoped_release release;
    s::keep_min_p(x.data(), size(x), p, min_keep);
  }, nb::arg("logits").noconvert(), nb::arg("p"), nb::arg("min_keep") = 1,
     "In place: probabilities below p times the largest become -inf.");

  m.def("philox", [](const Words& counter, const Words& key, const OwnWords& out) {
    if (size(counter) != 4 || size(key) != 2 || size(out) != 4)
      throw std::invalid_argument("philox: expected 4 counter words, 2 key words, 4 words of output");
    s::philox(counter.data(), key.data(), out.data());
  }, nb::arg("counter").noconvert(), nb::arg("key").noconvert(), nb::arg("out").noconvert(), "Philox4x32-10.");

  m.def("gumbel", [](uint64_t seed, uint32_t sample, uint32_t position, uint32_t stream, const ConstIds& ids,
                     const Doubles& out) {
    if (size(ids) != size(out)) throw std::invalid_argument("gumbel: ids and out differ in length");
    nb::gil_scoped_release release;
    s::gumbel({seed, sample, position, stream}, ids.data(), size(ids), out.data());
  }, nb::arg("seed"), nb::arg("sample"), nb::arg("position"), nb::arg("stream"), nb::arg("ids").noconvert(),
     nb::arg("out").noconvert(), "Fills out (float64) with the keyed Gumbel noise of each id.");

  m.def("gumbel_argmax", [](const Logits& x, uint64_t seed, uint32_t sample, uint32_t position, uint32_t stream) {
    nb::gil_scoped_release release;
    return s::gumbel_argmax(x.data(), size(x), {seed, sample, position, stream});
  }, nb::arg("logits").noconvert(), nb::arg("seed"), nb::arg("sample"), nb::arg("position"), nb::arg("stream"),
     "argmax of logits + keyed noise, lowest id of equals: one draw of softmax(logits); -1 if all are -inf.");
}

}  // namespace pellucid::bind
