// Packs weights on a thread of its own, with a pool's help, while the caller reads on. Knows no Python.
#pragma once
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <mutex>
#include <thread>

#include "threads.h"

namespace pellucid {

class Packing {
 public:
  explicit Packing(ThreadPool& pool) : pool_(pool) {}
  ~Packing();  // what has not begun is dropped
  Packing(const Packing&) = delete;
  Packing& operator=(const Packing&) = delete;

  // `stage` reads `bytes` from `source`, pages of a file's map that must stay until wait(); they leave this process's
  // memory when the stage is done. Nobody else may use the pool before wait().
  void add(const Stage& stage, const uint8_t* source, size_t bytes);
  // Returns when all that was added is packed. Costs one load where nothing is.
  void wait() {
    if (pending_.load(std::memory_order_acquire)) wait_for_all();
  }
  // The same, and the thread ends.
  void finish();

 private:
  struct Job {
    Stage stage;
    const uint8_t* source;
    size_t bytes;
  };
  void work();
  void end_thread();
  void wait_for_all();

  ThreadPool& pool_;
  std::mutex mutex_;
  std::condition_variable change_;
  std::deque<Job> jobs_;
  std::atomic<int64_t> pending_{0};  // jobs that are not done
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace pellucid
