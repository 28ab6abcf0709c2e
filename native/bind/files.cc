// Model files: the scan of GGUF string arrays, and dequantisation by the scalar reference.
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/string_view.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <string>
#include <string_view>
#include <tuple>
#include <vector>

#include "bind/bind.h"
#include "files/strings.h"
#include "quant/blocks.h"

namespace nb = nanobind;

namespace pellucid::bind {
namespace {

using ByteView = nb::ndarray<const uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Floats = nb::ndarray<float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Int64s = nb::ndarray<int64_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

void dequantize(std::string_view label, ByteView data, Floats out) {
  const quant::FormatInfo* format = quant::find_format(label);
  if (format == nullptr) throw nb::value_error(("dequantize: no weight format " + std::string(label)).c_str());
  const size_t num_blocks = data.size() / format->block_bytes;
  if (num_blocks * format->block_bytes != data.size() || num_blocks * format->block_size != out.size()) {
    const std::string message = "dequantize: " + std::to_string(data.size()) + " bytes of " + std::string(label) +
                                " cannot be " + std::to_string(out.size()) + " values";
    throw nb::value_error(message.c_str());
  }
  const uint8_t* src = data.data();
  float* dst = out.data();
  const nb::gil_scoped_release unlocked;
  quant::dequantize_row(format->format, src, dst, static_cast<int64_t>(num_blocks) * format->block_size);
}

std::tuple<uint64_t, uint64_t> scan_strings(ByteView data, uint64_t offset, uint64_t count) {
  const uint8_t* bytes = data.data();
  const size_t size = data.size();
  const nb::gil_scoped_release unlocked;
  const files::StringScan scan = files::scan_strings(bytes, size, offset, count, nullptr, nullptr);
  return {scan.end, scan.num_read};
}

std::tuple<uint64_t, uint64_t> string_spans(ByteView data, uint64_t offset, Int64s starts, Int64s lengths) {
  if (starts.size() != lengths.size()) throw nb::value_error("string_spans: starts and lengths differ in length");
  const uint8_t* bytes = data.data();
  const size_t size = data.size(), count = starts.size();
  int64_t *first = starts.data(), *second = lengths.data();
  const nb::gil_scoped_release unlocked;
  const files::StringScan scan = files::scan_strings(bytes, size, offset, count, first, second);
  return {scan.end, scan.num_read};
}

std::vector<std::tuple<std::string, int, int>> weight_formats() {
  std::vector<std::tuple<std::string, int, int>> formats;
  for (const quant::FormatInfo& entry : quant::kFormats)
    formats.emplace_back(std::string(entry.name), entry.block_size, entry.block_bytes);
  return formats;
}

}  // namespace

void bind_files(nb::module_& m) {
  m.def("dequantize", &dequantize, nb::arg("label"), nb::arg("data").noconvert(), nb::arg("out").noconvert(),
        "Blocks of a weight format to float32: data uint8 [bytes] -> out float32 [values], sizes checked.");
  m.def("weight_formats", &weight_formats, "[(label, values in a block, bytes of a block)]");
  m.def("scan_strings", &scan_strings, nb::arg("data").noconvert(), nb::arg("offset"), nb::arg("count"),
        "Walk `count` length-prefixed strings: (byte after the last one read, how many fit into data).");
  m.def("string_spans", &string_spans, nb::arg("data").noconvert(), nb::arg("offset"),
        nb::arg("starts").noconvert(), nb::arg("lengths").noconvert(),
        "As scan_strings, and fills starts and lengths, int64 [count].");
}

}  // namespace pellucid::bind
