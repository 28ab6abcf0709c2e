#include "arena.h"

#include <sys/mman.h>

#include <new>

namespace pellucid {
namespace {
constexpr size_t kHugePage = size_t{2} << 20;
constexpr size_t kChunk = size_t{64} << 20;  // pages are touched only when used
}  // namespace

uint8_t* Arena::allocate(size_t bytes) {
  bytes = (bytes + 63) / 64 * 64;
  if (chunks_.empty() || static_cast<size_t>(chunks_.back().end - chunks_.back().next) < bytes) {
    const size_t size = ((bytes > kChunk ? bytes : kChunk) + kHugePage - 1) / kHugePage * kHugePage;
    const size_t mapped = size + kHugePage;
    void* mapping = mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapping == MAP_FAILED) throw std::bad_alloc();
    auto* start = reinterpret_cast<uint8_t*>((reinterpret_cast<uintptr_t>(mapping) + kHugePage - 1) / kHugePage * kHugePage);
#ifdef MADV_HUGEPAGE
    madvise(start, size, MADV_HUGEPAGE);
#endif
    chunks_.push_back({mapping, mapped, start, start + size});
  }
  Chunk& chunk = chunks_.back();
  uint8_t* result = chunk.next;
  chunk.next += bytes;
  used_ += bytes;
  return result;
}

Arena::~Arena() {
  for (const Chunk& chunk : chunks_) munmap(chunk.mapping, chunk.mapped);
}

}  // namespace pellucid
