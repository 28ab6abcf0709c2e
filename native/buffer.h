// Bytes that stages write between one another; 64-byte aligned, so that no vector lies in two lines.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>

namespace pellucid {

using Buffer = std::shared_ptr<uint8_t[]>;

// Not cleared. Throws std::bad_alloc.
inline Buffer make_buffer(size_t bytes) {
  auto* p = static_cast<uint8_t*>(::operator new[](bytes ? bytes : 1, std::align_val_t{64}));
  return Buffer(p, [](uint8_t* q) { ::operator delete[](q, std::align_val_t{64}); });
}

}  // namespace pellucid
