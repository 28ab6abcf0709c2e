// The loop that SPM and BPE share: merge the best pair of neighbours until no pair is left.
#pragma once
#include <cstdint>
#include <queue>
#include <vector>

namespace pellucid::text {

// A symbol: bytes [begin, end) of the word, its token (kNone if it has none), its neighbours (-1: none).
struct Symbol {
  uint32_t begin, end;
  int32_t id;
  int32_t previous, next;
};

// A pair that could merge. `size` tells whether it still is the pair that was meant: the left side only grows.
template <typename Rank>
struct Pair {
  Rank rank;  // the smallest goes first; of equals the leftmost
  int32_t left, right;
  uint32_t size;
  int32_t id;  // what the pair becomes
  bool operator<(const Pair& other) const {
    return rank != other.rank ? rank > other.rank : left > other.left;  // std::priority_queue gives the largest
  }
};

// propose(left symbol, right symbol, pair): fills rank and id and returns true if the two can merge.
// O(n log n) for n symbols, no recursion.
template <typename Rank, typename Propose>
void merge_symbols(std::vector<Symbol>& symbols, Propose propose) {
  std::vector<Pair<Rank>> storage;
  storage.reserve(symbols.size());
  std::priority_queue<Pair<Rank>> queue({}, std::move(storage));
  const auto offer = [&](int32_t left, int32_t right) {
    if (left < 0 || right < 0) return;
    Pair<Rank> pair{{}, left, right, symbols[right].end - symbols[left].begin, -1};
    if (propose(symbols[left], symbols[right], pair)) queue.push(pair);
  };
  for (size_t i = 1; i < symbols.size(); ++i) offer(static_cast<int32_t>(i - 1), static_cast<int32_t>(i));
  while (!queue.empty()) {
    const Pair<Rank> pair = queue.top();
    queue.pop();
    Symbol& left = symbols[pair.left];
    Symbol& right = symbols[pair.right];
    const bool gone = left.begin == left.end || right.begin == right.end || left.next != pair.right;
    if (gone || right.end - left.begin != pair.size) continue;
    left.end = right.end;
    left.id = pair.id;
    left.next = right.next;
    right.end = right.begin;
    if (left.next >= 0) symbols[left.next].previous = pair.left;
    offer(left.previous, pair.left);
    offer(pair.left, left.next);
  }
}

}  // namespace pellucid::text
