#include "arena.h"

#include <algorithm>
#include <chrono>
#include <new>

#include "pages.h"

namespace pellucid {
namespace {

constexpr size_t kSmallPage = 4096;  // the least of any system
constexpr size_t kChunk = size_t{64} << 20;  // pages are touched only when used

}  // namespace

Arena::Arena(size_t expected) {
  if (expected == 0) return;
  // Packed rows are padded to whole panels: room for some more than the file has.
  const Chunk& chunk = add_chunk(expected + expected / 16);
  uint8_t* start = chunk.next;
  toucher_ = std::thread([this, start, expected] { touch(start, expected); });
}

// One byte of each page. The weights may be written meanwhile, by plain stores: an atomic "or" with nothing changes no
// byte, and on x86-64 and aarch64 loses none, since memory is coherent and the "or" fails or waits where another store
// comes between. C++ calls it a data race all the same, and so would the thread sanitizer: it is told not to look here,
// and `test_arena` of the kernel test looks that nothing is lost. Pages that are handed out must be touched, too: a
// large matrix is handed out whole, long before it is written.
// (madvise(MADV_POPULATE_WRITE) would hold the lock of all mappings, and the imports wait for it.)
__attribute__((no_sanitize("thread"))) void Arena::touch(uint8_t* start, size_t bytes) {
  for (size_t at = 0; at < bytes && !stop_.load(std::memory_order_relaxed);) {
    if (at >= handed_out_.load(std::memory_order_relaxed) + kAhead) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
      continue;
    }
    __atomic_fetch_or(start + at, uint8_t{0}, __ATOMIC_RELAXED);
    at += kSmallPage;
  }
}

Arena::Chunk& Arena::add_chunk(size_t bytes) {
  const size_t size = whole(kHugePage, std::max(bytes, kChunk)), mapped = size + kHugePage;
  void* mapping = mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapping == MAP_FAILED) throw std::bad_alloc();
  uint8_t* start = huge_page_from(mapping);
  ask_for_huge_pages(start, size);
  chunks_.push_back({mapping, mapped, start, start + size});
  return chunks_.back();
}

uint8_t* Arena::allocate(size_t bytes) {
  bytes = whole(kLine, bytes);
  if (chunks_.empty() || static_cast<size_t>(chunks_.back().end - chunks_.back().next) < bytes) add_chunk(bytes);
  Chunk& chunk = chunks_.back();
  uint8_t* result = chunk.next;
  chunk.next += bytes;
  used_ += bytes;
  if (chunks_.size() == 1) handed_out_.fetch_add(bytes, std::memory_order_relaxed);
  return result;
}

void Arena::settle() {
  stop_ = true;
  if (!toucher_.joinable()) return;
  toucher_.join();
  uint8_t* unused = huge_page_from(chunks_.front().next);
  if (unused < chunks_.front().end) madvise(unused, static_cast<size_t>(chunks_.front().end - unused), MADV_DONTNEED);
}

Arena::~Arena() {
  stop_ = true;
  if (toucher_.joinable()) toucher_.join();
  for (const Chunk& chunk : chunks_) munmap(chunk.mapping, chunk.mapped);
}

}  // namespace pellucid
