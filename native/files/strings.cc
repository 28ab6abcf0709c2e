#include "files/strings.h"

namespace pellucid::files {
namespace {

constexpr uint64_t kLengthBytes = 8;

uint64_t read_u64(const uint8_t* bytes) {
  uint64_t value = 0;
  for (int i = 7; i >= 0; --i) value = value << 8 | bytes[i];
  return value;
}

}  // namespace

StringScan scan_strings(const uint8_t* data, uint64_t size, uint64_t offset, uint64_t count, int64_t* starts,
                        int64_t* lengths) {
  if (offset > size) return {offset, 0};
  uint64_t at = offset;  // invariant: at <= size, so that no difference below wraps
  for (uint64_t i = 0; i < count; ++i) {
    if (size - at < kLengthBytes) return {at, i};
    const uint64_t length = read_u64(data + at);
    if (length > size - at - kLengthBytes) return {at, i};
    if (starts != nullptr) {
      starts[i] = static_cast<int64_t>(at + kLengthBytes);
      lengths[i] = static_cast<int64_t>(length);
    }
    at += kLengthBytes + length;
  }
  return {at, count};
}

}  // namespace pellucid::files
