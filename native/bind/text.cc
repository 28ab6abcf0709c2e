// Vocabularies and their encoders for Python.
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <memory>
#include <optional>

#include "bind/bind.h"
#include "text/encoder.h"

namespace pellucid::bind {

namespace {

namespace nb = nanobind;
using text::Vocabulary;
using Buffer = nb::ndarray<const uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Floats = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

// Runs `make`; a malformed array becomes ValueError(problem, byte offset in the buffer).
template <typename Make>
auto checked(Make make) {
  try {
    return make();
  } catch (const text::VocabularyError& error) {
    PyErr_SetObject(PyExc_ValueError, nb::make_tuple(error.what(), error.offset).ptr());
    throw nb::python_error();
  }
}

text::StringArray strings(const Buffer& buffer, size_t offset, size_t count) {
  return {reinterpret_cast<const char*>(buffer.data()), buffer.size(), offset, count};
}

struct PyVocabulary {
  Buffer pieces;  // kept alive: the vocabulary is a view of it
  std::unique_ptr<Vocabulary> vocabulary;

  void check(int64_t id) const {
    if (id < 0 || id >= static_cast<int64_t>(vocabulary->size())) {
      throw nb::index_error(("token id " + std::to_string(id) + " is not in 0.." +
                             std::to_string(static_cast<int64_t>(vocabulary->size()) - 1)).c_str());
    }
  }
};

nb::bytes to_bytes(std::string_view view) { return nb::bytes(view.data(), view.size()); }

text::Kind kind_of(const std::string& name) {
  if (name == "spm") return text::Kind::kSpm;
  if (name == "byte-level-bpe") return text::Kind::kByteLevelBpe;
  if (name == "plain-bpe") return text::Kind::kPlainBpe;
  throw nb::value_error("kind must be spm, byte-level-bpe or plain-bpe");
}

void construct(PyVocabulary* self, const std::string& kind, Buffer pieces, size_t offset, size_t count,
               std::optional<Buffer> types, std::optional<Floats> scores) {
  if ((types && types->size() != count) || (scores && scores->size() != count)) {
    throw nb::value_error("types and scores must have one entry for each piece");
  }
  auto vocabulary = checked([&] {
    std::vector<uint8_t> flags;
    std::vector<float> values;
    if (types) flags.assign(types->data(), types->data() + count);
    if (scores) values.assign(scores->data(), scores->data() + count);
    return std::make_unique<Vocabulary>(kind_of(kind), strings(pieces, offset, count), std::move(flags), std::move(values));
  });
  new (self) PyVocabulary{std::move(pieces), std::move(vocabulary)};
}

// parts: strings, and ids of tokens that stand between them.
nb::tuple encode(const PyVocabulary& self, nb::list parts, bool parse_special) {
  std::string text;
  std::vector<text::Fragment> forced;
  for (nb::handle part : parts) {
    if (PyUnicode_Check(part.ptr())) {
      Py_ssize_t size = 0;
      const char* bytes = PyUnicode_AsUTF8AndSize(part.ptr(), &size);
      if (!bytes) throw nb::python_error();  // a lone surrogate
      text.append(bytes, static_cast<size_t>(size));
    } else {
      const auto id = nb::cast<int64_t>(part);
      self.check(id);
      forced.push_back({text.size(), text.size(), static_cast<int32_t>(id)});
    }
  }
  text::Encoding out;
  {
    nb::gil_scoped_release release;
    out = text::encode(*self.vocabulary, text, parse_special, forced);
  }
  nb::list ids;
  for (const int32_t id : out.ids) ids.append(id);
  return nb::make_tuple(ids, nb::bytes(out.lost.data(), out.lost.size()));
}

nb::bytes join(const PyVocabulary& self, const std::vector<int64_t>& ids) {
  std::string out;
  for (const int64_t id : ids) {
    self.check(id);
    out += self.vocabulary->bytes(static_cast<int32_t>(id));
  }
  return to_bytes(out);
}

std::vector<int32_t> ids_of_type(const PyVocabulary& self, int type) {
  std::vector<int32_t> out;
  for (size_t i = 0; i < self.vocabulary->size(); ++i) {
    if (self.vocabulary->type(static_cast<int32_t>(i)) == type) out.push_back(static_cast<int32_t>(i));
  }
  return out;
}

nb::list words(const PyVocabulary& self, const std::string& text) {
  nb::list out;
  size_t begin = 0;
  for (const size_t end : text::split_words(*self.vocabulary, text)) {
    out.append(nb::str(text.data() + begin, end - begin));
    begin = end;
  }
  return out;
}

void set_options(PyVocabulary& self, bool add_space_prefix, bool ignore_merges, bool newline_words,
                 std::optional<int64_t> unknown_id) {
  if (unknown_id) self.check(*unknown_id);
  self.vocabulary->add_space_prefix = add_space_prefix;
  self.vocabulary->ignore_merges = ignore_merges;
  self.vocabulary->newline_words = newline_words;
  self.vocabulary->unknown_id = unknown_id ? static_cast<int32_t>(*unknown_id) : text::kNone;
}

}  // namespace

void bind_text(nb::module_& m) {
  nb::class_<PyVocabulary>(m, "Vocabulary", "The pieces of a GGUF vocabulary, read in place, and their encoder.")
      .def("__init__", construct, nb::arg("kind"), nb::arg("buffer"), nb::arg("offset"), nb::arg("count"),
           nb::arg("types").none(), nb::arg("scores").none())
      .def("set_merges",
           [](PyVocabulary& self, const Buffer& buffer, size_t offset, size_t count) {
             return checked([&] { return self.vocabulary->set_merges(strings(buffer, offset, count)); });
           })
      .def("set_stages", [](PyVocabulary& self, const std::vector<std::string>& stages) { self.vocabulary->set_stages(stages); })
      .def("set_options", set_options, nb::kw_only(), nb::arg("add_space_prefix"), nb::arg("ignore_merges"),
           nb::arg("newline_words"), nb::arg("unknown_id").none())
      .def("finish", [](PyVocabulary& self) { self.vocabulary->finish(); })
      .def_prop_ro("size", [](const PyVocabulary& self) { return self.vocabulary->size(); })
      .def("find",
           [](const PyVocabulary& self, const std::string& piece) -> std::optional<int32_t> {
             const int32_t id = self.vocabulary->find(piece);
             return id == text::kNone ? std::nullopt : std::optional<int32_t>(id);
           })
      .def("piece", [](const PyVocabulary& self, int64_t id) {
        self.check(id);
        return to_bytes(self.vocabulary->piece(static_cast<int32_t>(id)));
      })
      .def("bytes", [](const PyVocabulary& self, int64_t id) {
        self.check(id);
        return to_bytes(self.vocabulary->bytes(static_cast<int32_t>(id)));
      })
      .def("flags", [](const PyVocabulary& self, int64_t id) {
        self.check(id);
        return static_cast<int>(self.vocabulary->flags(static_cast<int32_t>(id)));
      })
      .def("set_flags", [](PyVocabulary& self, int64_t id, int flags) {
        self.check(id);
        self.vocabulary->set_flags(static_cast<int32_t>(id), static_cast<uint8_t>(flags));
      })
      .def("ids_of_type", ids_of_type)
      .def("encode", encode, nb::arg("parts"), nb::arg("parse_special"))
      .def("join", join)
      .def("words", words);
}

}  // namespace pellucid::bind
