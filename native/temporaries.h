// Memory of arrays that live within a pass: what is no longer held is used again, the latest first, while the caches
// still have it.
//
// Freed memory of this size the C library gives back to the system, and the system clears each page when it is touched
// anew: a quarter of the time of a prompt (bench/README.md).
#pragma once
#include <map>
#include <mutex>
#include <vector>

#include "buffer.h"

namespace pellucid {

class Temporaries {
 public:
  struct Block {
    Buffer memory;  // 64-byte aligned, not cleared
    size_t bytes;
  };

  // limit: bytes that are kept for later, at most.
  explicit Temporaries(size_t limit) : limit_(limit) {}
  // At least so many bytes. Throws std::bad_alloc.
  Block take(size_t bytes);
  void give_back(Block block) noexcept;
  size_t num_kept() const;  // bytes

 private:
  const size_t limit_;
  mutable std::mutex mutex_;
  std::map<size_t, std::vector<Buffer>> free_;  // by size
  size_t kept_ = 0;
};

}  // namespace pellucid
