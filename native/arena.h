// Memory for packed weights: large anonymous mappings, on huge pages where the system gives them. Never moved or shrunk.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

namespace pellucid {

class Arena {
 public:
  Arena() = default;
  ~Arena();
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  // Aligned to 64 bytes, zero. Throws std::bad_alloc.
  uint8_t* allocate(size_t bytes);
  size_t used() const { return used_; }

 private:
  struct Chunk {
    void* mapping;
    size_t mapped;
    uint8_t* next;
    uint8_t* end;
  };
  std::vector<Chunk> chunks_;
  size_t used_ = 0;
};

}  // namespace pellucid
