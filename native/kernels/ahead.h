// Memory asked for before it is read: several rows of x read weights too slowly for the processor's own prefetchers to
// stay ahead of them.
#pragma once
#include <cstdint>

#include "kernels/formats.h"

namespace pellucid::PELLUCID_ISA {

// A stream that is asked for evenly while rows go through a panel: a few lines of 64 bytes with each block.
struct Ahead {
  const uint8_t* p;
  const uint8_t* end;
  int64_t lines;

  // num_blocks: of all tiles together.
  Ahead(const uint8_t* begin, int64_t bytes, int64_t num_blocks)
      : p(begin), end(begin + bytes), lines((bytes / 64 + num_blocks - 1) / num_blocks) {}

  PELLUCID_INLINE void next_block() {
    for (int64_t i = 0; i < lines && p < end; ++i, p += 64) __builtin_prefetch(p, 0, 2);
  }
};

}  // namespace pellucid::PELLUCID_ISA
