#include "temporaries.h"

#include <algorithm>
#include <bit>

#include "pages.h"

namespace pellucid {
namespace {

// Eight sizes to a power of two, so that passes of nearly as many rows share them.
size_t size_class(size_t bytes) {
  const size_t step = std::max(kLine, std::bit_floor(bytes | 1) / 8);
  return whole(step, bytes);
}

// As NumPy's: large arrays (the logits of many rows) on huge pages, each of which is cleared at once.
Buffer make_block(size_t size) {
  Buffer memory = make_buffer(size);
  if (size >= 2 * kHugePage) ask_for_huge_pages(memory.get(), size);
  return memory;
}

}  // namespace

Temporaries::Block Temporaries::take(size_t bytes) {
  const size_t size = size_class(bytes);
  {
    const std::lock_guard lock(mutex_);
    if (const auto found = free_.find(size); found != free_.end() && !found->second.empty()) {
      Block block{std::move(found->second.back()), size};
      found->second.pop_back();
      kept_ -= size;
      return block;
    }
  }
  return {make_block(size), size};
}

void Temporaries::give_back(Block block) noexcept {
  const std::lock_guard lock(mutex_);
  if (block.bytes > limit_) return;
  if (kept_ + block.bytes > limit_) {  // sizes of passes that may not come again
    free_.clear();
    kept_ = 0;
  }
  try {
    free_[block.bytes].push_back(std::move(block.memory));
    kept_ += block.bytes;
  } catch (const std::bad_alloc&) {
    // Not kept, then.
  }
}

size_t Temporaries::num_kept() const {
  const std::lock_guard lock(mutex_);
  return kept_;
}

}  // namespace pellucid
