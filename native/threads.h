// One pool of threads. Work comes as stages: every thread runs a stage, all wait, then the next stage begins.
//
// Idle threads spin for a moment (a decode step has hundreds of stages, microseconds apart), then sleep.
#pragma once
#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

namespace pellucid {

// What a stage sees of the thread that runs it.
struct Worker {
  int index, count;
  std::atomic<int64_t>* cursor;  // shared by the threads of a stage; 0 when it begins

  // Next `step` items of `total`: true and [begin, end), or false when all are taken.
  bool take(int64_t total, int64_t step, int64_t& begin, int64_t& end) {
    begin = count == 1 ? solo : cursor->fetch_add(step, std::memory_order_relaxed);
    solo += step;
    if (begin >= total) return false;
    end = begin + step < total ? begin + step : total;
    return true;
  }
  int64_t solo = 0;
};

// A plain function and its arguments, by value.
struct Stage {
  static constexpr int kArgumentBytes = 384;
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
  // One caller at a time.
  void run(const Stage* stages, int64_t num_stages);

 private:
  void work(int index);
  void execute(int index);
  void barrier();

  const int num_threads_;
  const Stage* stages_ = nullptr;
  int64_t num_stages_ = 0;
  alignas(64) std::atomic<uint32_t> job_{0};  // counts the calls of run; workers wait for its change
  alignas(64) std::atomic<int> arrived_{0};
  alignas(64) std::atomic<uint32_t> phase_{0};
  alignas(64) std::atomic<int64_t> cursor_{0};
  std::atomic<bool> stop_{false};
  std::vector<std::thread> threads_;
};

}  // namespace pellucid
