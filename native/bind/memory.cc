// Memory that Python asks for by itself: of packed weights, and of the arrays of a pass.
#include "bind/bind.h"
#include "bind/py_runner.h"
#include "temporaries.h"

namespace pellucid::bind {
namespace {

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

}  // namespace

void bind_memory(nb::module_& m) {
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
}

}  // namespace pellucid::bind
