// GGUF string arrays: `count` times (uint64 length, little endian; that many bytes), found without copying.
#pragma once
#include <cstdint>

namespace pellucid::files {

// `end`: the byte after the last string read; `num_read` < count: the string that begins at `end` does not fit.
struct StringScan {
  uint64_t end;
  uint64_t num_read;
};

// Walks `count` strings from byte `offset` of data [size]; nothing is read outside of it, whatever the lengths say.
// starts, lengths: int64 [count] for the bytes of each string, or both nullptr.
StringScan scan_strings(const uint8_t* data, uint64_t size, uint64_t offset, uint64_t count, int64_t* starts,
                        int64_t* lengths);

}  // namespace pellucid::files
