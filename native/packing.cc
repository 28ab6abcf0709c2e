#include "packing.h"

#include <sys/mman.h>
#include <unistd.h>

namespace pellucid {
namespace {

// Whole pages from the one that `source` begins in: the rows before have been read, and the page that is shared with the
// rows after comes back from the system's cache when they are read.
void give_back(const uint8_t* source, size_t bytes) {
  static const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const auto first = reinterpret_cast<uintptr_t>(source) / page * page;
  madvise(reinterpret_cast<void*>(first), reinterpret_cast<uintptr_t>(source) + bytes - first, MADV_DONTNEED);
}

}  // namespace

void Packing::add(const Stage& stage, const uint8_t* source, size_t bytes) {
  const std::lock_guard<std::mutex> lock(mutex_);
  jobs_.push_back({stage, source, bytes});
  pending_.fetch_add(1, std::memory_order_relaxed);
  if (!thread_.joinable()) thread_ = std::thread([this] { work(); });
  change_.notify_all();
}

void Packing::work() {
  for (;;) {
    std::unique_lock<std::mutex> lock(mutex_);
    change_.wait(lock, [this] { return stop_ || !jobs_.empty(); });
    if (stop_) return;
    const Job job = jobs_.front();
    jobs_.pop_front();
    lock.unlock();
    pool_.run(&job.stage, 1);
    give_back(job.source, job.bytes);
    lock.lock();
    pending_.fetch_sub(1, std::memory_order_release);
    change_.notify_all();
  }
}

void Packing::wait_for_all() {
  std::unique_lock<std::mutex> lock(mutex_);
  change_.wait(lock, [this] { return pending_.load(std::memory_order_relaxed) == 0; });
}

void Packing::finish() {
  wait();
  end_thread();
}

void Packing::end_thread() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stop_ = true;
  }
  change_.notify_all();
  if (thread_.joinable()) thread_.join();
  stop_ = false;
}

Packing::~Packing() { end_thread(); }

}  // namespace pellucid
