// One pool of threads. Work comes as stages, each a number of items; the next stage begins when all items are done.
//
// A stage waits for its items, not for its threads: a thread that the system has put aside while it holds no item
// delays nobody, and finds on its return that the others have gone on. (With a barrier of all threads, one busy
// neighbour on the machine made decoding six times slower.)
// Idle threads spin for a moment (a decode step has hundreds of stages, microseconds apart), then sleep.
#pragma once
#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

namespace pellucid {

class ThreadPool;

// What a stage's function sees of the thread that runs it. It calls `take` until that says false, always with the
// same total; what it took before is then done. A function that never takes anything is one item.
class Worker {
 public:
  static Worker alone() { return Worker(nullptr, 0, 1, 0); }

  const int index, count;

  // The next `step` items of `total`: true and [begin, end), or false when all are taken.
  bool take(int64_t total, int64_t step, int64_t& begin, int64_t& end) { return take(total, step, 0, begin, end); }
  // More at first, for long streams through memory: half of this thread's share of what is left, `least` at the end.
  bool take_share(int64_t total, int64_t least, int64_t& begin, int64_t& end) {
    return take(total, least, 2 * count, begin, end);
  }
  // The same from this thread's own part of the items first (the index-th of `count` equal ones), then from what the
  // others have left of theirs: stages over the same rows, one after the other, find in a core's cache what it wrote.
  bool take_near(int64_t total, int64_t step, int64_t& begin, int64_t& end);

 private:
  friend class ThreadPool;
  Worker(ThreadPool* pool, int index_, int count_, uint32_t stage) : index(index_), count(count_), pool_(pool), stage_(stage) {}
  bool take(int64_t total, int64_t step, int64_t parts, int64_t& begin, int64_t& end);
  void hand_in(int64_t total);
  void leave();

  ThreadPool* pool_;  // null: alone
  uint32_t stage_;
  int64_t next_ = 0;     // alone: the items taken so far
  int parts_done_ = 0;   // take_near: this thread's own part, and the next ones, of which nothing is left
  int64_t holding_ = 0;  // items taken and not yet done
  bool counted_ = false;
};

// A plain function and its arguments, by value.
struct Stage {
  static constexpr int kArgumentBytes = 512;
  void (*run)(const void* arguments, Worker& worker);
  bool serial;  // so little work that only the first thread does it
  alignas(16) unsigned char arguments[kArgumentBytes];
};

class ThreadPool {
 public:
  explicit ThreadPool(int num_threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int num_threads() const { return num_threads_; }
  // Runs the stages in order on all threads, the caller being the first; returns when all are done.
  // One caller at a time. No stage may change what an earlier one reads before it takes its first item.
  void run(const Stage* stages, int64_t num_stages);

 private:
  friend class Worker;
  void work(int index);
  void lead();
  void help(int index, uint32_t job);
  void run_stage(int64_t i, int index);
  void wait_for(uint32_t stage) const;
  void complete(uint32_t stage);
  // A number of the stage in the upper 24 bits, the next item of it, or of a part of it, in the lower 40.
  struct alignas(64) Cursor {
    std::atomic<uint64_t> next{0};
  };
  bool take(Cursor& cursor, uint32_t stage, int64_t total, int64_t step, int64_t parts, int64_t& begin, int64_t& end);
  void done(uint32_t stage, int64_t items, int64_t total);

  const int num_threads_;
  const Stage* stages_ = nullptr;
  int64_t num_stages_ = 0;
  uint32_t first_stage_ = 0;  // number of the job's first stage; stages are counted for the pool's whole life
  alignas(64) std::atomic<uint32_t> job_{0};     // odd while a job runs
  alignas(64) std::atomic<int> active_{0};       // threads, beside the caller, that look at the job now
  alignas(64) std::atomic<uint32_t> stage_{0};   // the stage that is being run
  Cursor cursor_;                                // of all its items
  std::vector<Cursor> part_cursors_;             // [threads]
  alignas(64) std::atomic<int64_t> done_{0};     // its items that are done
  std::atomic<bool> stop_{false};
  std::vector<std::thread> threads_;
};

// What was taken before is done.
inline void Worker::hand_in(int64_t total) {
  counted_ = true;
  if (holding_) pool_->done(stage_, holding_, total);
  holding_ = 0;
}

inline bool Worker::take(int64_t total, int64_t step, int64_t parts, int64_t& begin, int64_t& end) {
  if (!pool_) {
    begin = next_;
    if (begin >= total) return false;
    end = begin + step < total ? begin + step : total;
    next_ = end;
    return true;
  }
  if (total <= 0) return false;
  hand_in(total);
  holding_ = pool_->take(pool_->cursor_, stage_, total, step, parts, begin, end) ? end - begin : 0;
  return holding_ > 0;
}

inline bool Worker::take_near(int64_t total, int64_t step, int64_t& begin, int64_t& end) {
  if (!pool_) return take(total, step, begin, end);
  if (total <= 0) return false;
  hand_in(total);
  const int64_t steps = (total + step - 1) / step;
  for (; parts_done_ < count; ++parts_done_) {
    const int64_t part = (index + parts_done_) % count, first = steps * part / count * step;
    const int64_t last = steps * (part + 1) / count * step, size = (last < total ? last : total) - first;
    if (!pool_->take(pool_->part_cursors_[static_cast<size_t>(part)], stage_, size, step, 0, begin, end)) continue;
    holding_ = end - begin;
    begin += first;
    end += first;
    return true;
  }
  return false;
}

}  // namespace pellucid
