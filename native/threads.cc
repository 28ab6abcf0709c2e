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

constexpr int kSpinsBeforeYield = 2000;                             // in a barrier: some ten microseconds
constexpr auto kSpinBeforeSleep = std::chrono::microseconds(200);  // between two jobs

}  // namespace

ThreadPool::ThreadPool(int num_threads) : num_threads_(num_threads < 1 ? 1 : num_threads) {
  for (int i = 1; i < num_threads_; ++i) threads_.emplace_back([this, i] { work(i); });
}

ThreadPool::~ThreadPool() {
  stop_.store(true);
  job_.fetch_add(1);
  job_.notify_all();
  for (std::thread& t : threads_) t.join();
}

void ThreadPool::run(const Stage* stages, int64_t num_stages) {
  if (num_stages == 0) return;
  stages_ = stages;
  num_stages_ = num_stages;
  cursor_.store(0, std::memory_order_relaxed);
  if (num_threads_ > 1) {
    job_.fetch_add(1, std::memory_order_release);
    job_.notify_all();
  }
  execute(0);
}

void ThreadPool::work(int index) {
  uint32_t seen = 0;
  for (;;) {
    const auto idle_since = std::chrono::steady_clock::now();
    for (int spins = 1; job_.load(std::memory_order_acquire) == seen; ++spins) {
      pause_a_little();
      if (spins % 256 == 0 && std::chrono::steady_clock::now() - idle_since > kSpinBeforeSleep)
        job_.wait(seen, std::memory_order_acquire);
    }
    ++seen;
    if (stop_.load(std::memory_order_relaxed)) return;
    execute(index);
  }
}

void ThreadPool::execute(int index) {
  // Read before the last barrier: once through it, the caller may hand over the next job.
  const Stage* stages = stages_;
  const int64_t num_stages = num_stages_;
  for (int64_t i = 0; i < num_stages; ++i) {
    const bool serial = stages[i].serial;
    if (index == 0 || !serial) {
      Worker worker{index, serial ? 1 : num_threads_, &cursor_};
      stages[i].run(stages[i].arguments, worker);
    }
    // Serial stages in a row are all the first thread's: nobody need wait between them.
    if (!serial || i + 1 == num_stages || !stages[i + 1].serial) barrier();
  }
}

void ThreadPool::barrier() {
  if (num_threads_ == 1) return;
  const uint32_t phase = phase_.load(std::memory_order_relaxed);
  if (arrived_.fetch_add(1, std::memory_order_acq_rel) == num_threads_ - 1) {
    arrived_.store(0, std::memory_order_relaxed);
    cursor_.store(0, std::memory_order_relaxed);
    phase_.store(phase + 1, std::memory_order_release);
    return;
  }
  for (int spins = 0; phase_.load(std::memory_order_acquire) == phase; ++spins) {
    if (spins < kSpinsBeforeYield) pause_a_little();
    else std::this_thread::yield();
  }
}

}  // namespace pellucid
