#include "threads.h"

#include <chrono>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace pellucid {
namespace {

inline void pause_a_little() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// A thread that yields to a busy neighbour comes back milliseconds later, so yield late.
constexpr int kSpinsBeforeYield = 20000;                            // waiting for a stage: some hundred microseconds
constexpr auto kSpinBeforeSleep = std::chrono::microseconds(200);  // between two jobs

template <class Condition> void spin_until(Condition condition) {
  for (int spins = 0; !condition(); ++spins) {
    if (spins < kSpinsBeforeYield) pause_a_little();
    else std::this_thread::yield();
  }
}

// Of a cursor (threads.h).
constexpr int kItemBits = 40;
constexpr uint64_t kItemMask = (uint64_t{1} << kItemBits) - 1;
constexpr uint64_t cursor_of(uint32_t stage) { return static_cast<uint64_t>(stage & 0xffffffu) << kItemBits; }

}  // namespace

void Worker::leave() {
  if (!pool_ || counted_) return;
  int64_t begin, end;
  if (pool_->take(pool_->cursor_, stage_, 1, 1, 0, begin, end)) pool_->done(stage_, 1, 1);
}

ThreadPool::ThreadPool(int num_threads)
    : num_threads_(num_threads < 1 ? 1 : num_threads), part_cursors_(static_cast<size_t>(num_threads_)) {
  for (int i = 1; i < num_threads_; ++i) threads_.emplace_back([this, i] { work(i); });
}

ThreadPool::~ThreadPool() {
  stop_.store(true);
  job_.fetch_add(2);
  job_.notify_all();
  for (std::thread& t : threads_) t.join();
}

void ThreadPool::run(const Stage* stages, int64_t num_stages) {
  if (num_stages == 0) return;
  if (num_threads_ == 1) {
    for (int64_t i = 0; i < num_stages; ++i) {
      Worker worker = Worker::alone();
      stages[i].run(stages[i].arguments, worker);
    }
    return;
  }
  stages_ = stages;
  num_stages_ = num_stages;
  first_stage_ = stage_.load(std::memory_order_relaxed);
  job_.fetch_add(1);  // odd: open
  job_.notify_all();
  lead();
  wait_for(first_stage_ + static_cast<uint32_t>(num_stages));
  job_.fetch_add(1);  // closed: a thread that looks now goes back to waiting
  spin_until([this] { return active_.load() == 0; });
}

void ThreadPool::work(int index) {
  uint32_t seen = 0;  // the last value of job_ that was dealt with
  for (;;) {
    const auto idle_since = std::chrono::steady_clock::now();
    uint32_t job = job_.load(std::memory_order_acquire);
    for (int spins = 1; job == seen || job % 2 == 0; job = job_.load(std::memory_order_acquire), ++spins) {
      if (stop_.load(std::memory_order_relaxed)) return;
      pause_a_little();
      if (spins % 256 == 0 && std::chrono::steady_clock::now() - idle_since > kSpinBeforeSleep)
        job_.wait(job, std::memory_order_acquire);
    }
    seen = job;
    help(index, job);
  }
}

// What the caller does: every stage in turn.
void ThreadPool::lead() {
  for (int64_t i = 0; i < num_stages_; ++i) {
    const uint32_t number = first_stage_ + static_cast<uint32_t>(i);
    wait_for(number);
    run_stage(i, 0);
  }
}

// What the other threads do. Between two stages they are not active: the caller need not wait for one that the system
// has put aside there, and they look at the job again only after they have seen that it is still the same.
void ThreadPool::help(int index, uint32_t job) {
  for (int64_t i = 0;; ++i) {
    active_.fetch_add(1);
    // Either the caller sees this thread among the active ones and waits for it, or this thread sees the job closed.
    if (job_.load() != job || i >= num_stages_) {
      active_.fetch_sub(1);
      return;
    }
    const int64_t now = static_cast<int32_t>(stage_.load(std::memory_order_acquire) - first_stage_);
    if (now > i) i = now;  // the others have gone on
    if (i < num_stages_ && now == i && !stages_[i].serial) run_stage(i, index);
    const uint32_t next = first_stage_ + static_cast<uint32_t>(i) + 1;
    active_.fetch_sub(1);
    spin_until([&] {
      return static_cast<int32_t>(stage_.load(std::memory_order_acquire) - next) >= 0 ||
             job_.load(std::memory_order_relaxed) != job;
    });
  }
}

void ThreadPool::run_stage(int64_t i, int index) {
  const Stage& stage = stages_[i];
  const uint32_t number = first_stage_ + static_cast<uint32_t>(i);
  if (stage.serial) {
    Worker worker = Worker::alone();
    stage.run(stage.arguments, worker);
    complete(number);
  } else {
    Worker worker(this, index, num_threads_, number);
    stage.run(stage.arguments, worker);
    worker.leave();
  }
}

// Until `stage` has begun (it may be over already).
void ThreadPool::wait_for(uint32_t stage) const {
  spin_until([&] { return static_cast<int32_t>(stage_.load(std::memory_order_acquire) - stage) >= 0; });
}

void ThreadPool::complete(uint32_t stage) {
  done_.store(0, std::memory_order_relaxed);
  cursor_.next.store(cursor_of(stage + 1), std::memory_order_relaxed);
  for (Cursor& part : part_cursors_) part.next.store(cursor_of(stage + 1), std::memory_order_relaxed);
  stage_.store(stage + 1, std::memory_order_release);
}

// The next `step` items, or 1 / parts of what is left if that is more.
bool ThreadPool::take(Cursor& from, uint32_t stage, int64_t total, int64_t step, int64_t parts, int64_t& begin, int64_t& end) {
  uint64_t cursor = from.next.load(std::memory_order_relaxed);
  for (;;) {
    if (cursor >> kItemBits != (stage & 0xffffffu)) return false;  // the others have finished this stage
    begin = static_cast<int64_t>(cursor & kItemMask);
    if (begin >= total) return false;
    const int64_t share = parts ? (total - begin) / parts : 0, items = share > step ? share : step;
    end = begin + items < total ? begin + items : total;
    if (from.next.compare_exchange_weak(cursor, cursor + static_cast<uint64_t>(end - begin), std::memory_order_acq_rel))
      return true;
  }
}

void ThreadPool::done(uint32_t stage, int64_t items, int64_t total) {
  if (done_.fetch_add(items, std::memory_order_acq_rel) + items == total) complete(stage);
}

}  // namespace pellucid
