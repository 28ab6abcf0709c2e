// Memory for packed weights: large anonymous mappings, on huge pages where the system gives them. Never moved or shrunk.
//
// The system clears a page when it is first touched, which takes as long as packing. An arena that is told how much to
// expect has a thread that touches its memory ahead of use, while the process still imports and parses.
#pragma once
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <thread>
#include <vector>

namespace pellucid {

class Arena {
 public:
  // expected: bytes to touch ahead of their use, at most kAhead of them; 0: none. Throws std::bad_alloc.
  explicit Arena(size_t expected = 0);
  ~Arena();
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  // Aligned to 64 bytes, zero. Throws std::bad_alloc.
  uint8_t* allocate(size_t bytes);
  // All is allocated: no more is touched, and what was touched in vain goes back to the system.
  void settle();
  size_t used() const { return used_; }

 private:
  static constexpr size_t kAhead = size_t{128} << 20;  // touched and not used, at most
  struct Chunk {
    void* mapping;
    size_t mapped;
    uint8_t* next;
    uint8_t* end;
  };
  Chunk& add_chunk(size_t bytes);
  void touch(uint8_t* start, size_t bytes);

  std::vector<Chunk> chunks_;
  size_t used_ = 0;
  std::atomic<size_t> handed_out_{0};  // bytes of the first chunk
  std::atomic<bool> stop_{false};
  std::thread toucher_;
};

}  // namespace pellucid
