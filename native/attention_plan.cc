// Which rows attend together, and to which runs.
//
// Many rows of one sequence (a prompt's chunk) are cut into tiles. The few rows of other sequences are gathered run by
// run: those whose blocks in a run are the same, because they share a prefix, read it once. What a query gets from a
// run does not depend on its company, and its runs are merged in ascending order, so the plan changes no bit.
#include <algorithm>
#include <cstring>

#include "kernels/attention.h"

namespace pellucid {
namespace {

constexpr int64_t kFewRows = 8;         // a sequence with more rows in the pass has tiles of its own
constexpr int64_t kItemsPerThread = 4;  // fewer tiles than that are split into their runs, too

class Planner {
 public:
  explicit Planner(const AttentionArgs& a)
      : a_(a), group_(a.heads / a.kv_heads), parts_(attention_parts(group_)),
        tile_rows_(std::max<int64_t>(1, kTileQueries / group_)) {}

  void plan() {
    for (int64_t row = 0; row < a_.rows; ++row) a_.item_rows[row] = static_cast<int32_t>(row);  // what tiles refer to
    listed_ = a_.rows;
    int64_t tiles = 0;
    for (int64_t row = 0, end; row < a_.rows; row = end) {
      end = sequence_end(row);
      if (end - row > kFewRows) tiles += (end - row + tile_rows_ - 1) / tile_rows_;
    }
    const bool many = tiles * parts_ * a_.kv_heads >= kItemsPerThread * a_.num_threads;
    for (int64_t row = 0, end; row < a_.rows; row = end) {
      end = sequence_end(row);
      end - row > kFewRows ? add_tiles(row, end, many) : add_few(row, end);
    }
    if (num_members_) gather_by_run();
    a_.counts[0] = num_items_;
    a_.counts[1] = num_merged_;
  }

 private:
  int64_t sequence_end(int64_t row) const {
    int64_t end = row + 1;
    while (end < a_.rows && a_.sequence_ids[end] == a_.sequence_ids[row]) ++end;
    return end;
  }

  // Space for a row's partials; false if it sees only one run, or if there is no space: then it is done whole.
  bool reserve(int64_t row) {
    const int64_t runs = a_.last_run(row) - a_.first_run(row) + 1;
    a_.partial_at[row] = -1;
    if (runs == 1 || num_partials_ + runs > a_.most_partials) return false;
    a_.partial_at[row] = static_cast<int32_t>(num_partials_);
    num_partials_ += runs;
    a_.merge_rows[num_merged_++] = static_cast<int32_t>(row);
    return true;
  }

  void add(int64_t rows_at, int64_t num_rows, int64_t first_run, int64_t end_run, bool whole) {
    for (int64_t part = 0; part < parts_; ++part) {
      const int64_t head = part * kTileQueries, heads = std::min<int64_t>(group_ - head, kTileQueries);
      a_.items[num_items_++] = {static_cast<int32_t>(rows_at), static_cast<int32_t>(num_rows), static_cast<int32_t>(head),
                                static_cast<int32_t>(heads), static_cast<int32_t>(first_run),
                                static_cast<int32_t>(end_run), whole};
    }
  }

  // Rows of one sequence, in their order: a thread's tiles are of the rows that it has in the other operations.
  void add_tiles(int64_t begin, int64_t end, bool many) {
    for (int64_t at = begin; at < end; at += tile_rows_) {
      const int64_t stop = std::min(at + tile_rows_, end);
      int64_t first = a_.first_run(at), last = a_.last_run(at);
      bool split = !many;
      for (int64_t row = at; row < stop; ++row) {
        first = std::min(first, a_.first_run(row));
        last = std::max(last, a_.last_run(row));
      }
      split = split && last > first && num_partials_ + (stop - at) * (last - first + 1) <= a_.most_partials;
      for (int64_t row = at; row < stop; ++row) split ? void(reserve(row)) : void(a_.partial_at[row] = -1);
      if (!split) add(at, stop - at, first, last + 1, true);
      for (int64_t run = first; split && run <= last; ++run) add(at, stop - at, run, run + 1, false);
    }
  }

  void add_few(int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      if (reserve(row) || a_.first_run(row) == a_.last_run(row)) {
        a_.members[num_members_++] = static_cast<int32_t>(row);
        last_run_ = std::max(last_run_, a_.last_run(row));
      } else {
        add(row, 1, a_.first_run(row), a_.last_run(row) + 1, true);
      }
    }
  }

  // Members lie in groups with the same blocks in all runs so far; each run refines them.
  void gather_by_run() {
    for (int64_t i = 0; i < num_members_; ++i) a_.group_starts[i] = i == 0;
    for (int64_t run = 0; run <= last_run_ && num_members_; ++run) {
      drop_before(run);
      for (int64_t begin = 0, end; begin < num_members_; begin = end) {
        end = begin + 1;
        while (end < num_members_ && !a_.group_starts[end]) ++end;
        if (end - begin > 1) end = refine(begin, end, run);
        emit(begin, end, run);
      }
    }
  }

  // Without the members whose last run has been.
  void drop_before(int64_t run) {
    int64_t kept = 0;
    int32_t starts = 0;  // a group whose first member goes begins at the next
    for (int64_t i = 0; i < num_members_; ++i) {
      starts |= a_.group_starts[i];
      if (a_.last_run(a_.members[i]) < run) continue;
      a_.members[kept] = a_.members[i];
      a_.group_starts[kept++] = starts;
      starts = 0;
    }
    num_members_ = kept;
  }

  // Moves those that share the first member's blocks beside it; gives their end. The others are a group for now.
  int64_t refine(int64_t begin, int64_t end, int64_t run) {
    int64_t same = begin + 1;
    for (int64_t i = same; i < end; ++i)
      if (same_blocks(a_.members[begin], a_.members[i], run)) std::swap(a_.members[same++], a_.members[i]);
    if (same < end) a_.group_starts[same] = 1;
    return same;
  }

  bool same_blocks(int64_t x, int64_t y, int64_t run) const {
    if (a_.sequence_ids[x] == a_.sequence_ids[y]) return true;
    const int64_t per_run = kRun / a_.block_size, at = run * per_run;
    const int64_t last = std::max(a_.positions[x], a_.positions[y]) / a_.block_size;
    const int32_t *bx = a_.blocks_of(x) + at, *by = a_.blocks_of(y) + at;
    return bx[0] == by[0] && !std::memcmp(bx, by, static_cast<size_t>(std::min(last - at + 1, per_run)) * 4);
  }

  void emit(int64_t begin, int64_t end, int64_t run) {
    for (int64_t i = begin; i < end;) {
      const int64_t at = listed_;
      for (; i < end && listed_ - at < tile_rows_; ++i)
        if (a_.first_run(a_.members[i]) <= run) a_.item_rows[listed_++] = a_.members[i];
      if (listed_ > at) add(at, listed_ - at, run, run + 1, false);
    }
  }

  const AttentionArgs& a_;
  const int64_t group_, parts_, tile_rows_;
  int64_t num_items_ = 0, listed_ = 0, num_merged_ = 0, num_partials_ = 0, num_members_ = 0, last_run_ = 0;
};

}  // namespace

void plan_attention(const AttentionArgs& args) { Planner(args).plan(); }

}  // namespace pellucid
