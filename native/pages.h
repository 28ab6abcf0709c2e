// Lines of a cache and huge pages: what memory is rounded to, and how huge pages are asked for.
#pragma once
#include <sys/mman.h>

#include <cstddef>
#include <cstdint>

namespace pellucid {

inline constexpr size_t kLine = 64, kHugePage = size_t{2} << 20;

constexpr size_t whole(size_t unit, size_t bytes) { return (bytes + unit - 1) / unit * unit; }

// The first huge page that begins at p or behind it.
inline uint8_t* huge_page_from(const void* p) { return reinterpret_cast<uint8_t*>(whole(kHugePage, reinterpret_cast<uintptr_t>(p))); }

// Asks for huge pages, as far as whole ones lie in [p, p + bytes). The system may refuse.
inline void ask_for_huge_pages([[maybe_unused]] void* p, [[maybe_unused]] size_t bytes) {
#ifdef MADV_HUGEPAGE
  const auto *end = static_cast<uint8_t*>(p) + bytes;
  uint8_t* const first = huge_page_from(p);
  if (first + kHugePage <= end) madvise(first, static_cast<size_t>(end - first) / kHugePage * kHugePage, MADV_HUGEPAGE);
#endif
}

}  // namespace pellucid
