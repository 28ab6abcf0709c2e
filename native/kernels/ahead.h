// Memory asked for before it is read: several rows of x read weights too slowly for the processor's own prefetchers to
// stay ahead of them.
#pragma once
#include <cstdint>

#include "kernels/formats.h"

namespace pellucid::PELLUCID_ISA {

struct Stream {
  const uint8_t* at;
  int64_t bytes;
};

// The part of a stream that is asked for while one tile of rows goes through a panel of `blocks` blocks.
struct Ahead {
  const uint8_t* p;
  int64_t lines;  // of 64 bytes, for each block

  // Tile number `tile` of `tiles` asks for its part of the stream.
  Ahead(Stream stream, int64_t blocks, int64_t tile, int64_t tiles) {
    lines = (stream.bytes / 64 + blocks * tiles - 1) / (blocks * tiles);
    const int64_t asked = tile * blocks * lines * 64;
    p = stream.at + asked;
    if (asked >= stream.bytes) lines = 0;
  }

  PELLUCID_INLINE void next_block() {
    for (int64_t i = 0; i < lines; ++i, p += 64) __builtin_prefetch(p, 0, 2);
  }
};

}  // namespace pellucid::PELLUCID_ISA
