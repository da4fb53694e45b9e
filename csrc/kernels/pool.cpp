#include "kernels/pool.h"

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <exception>
#include <mutex>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>

namespace cogit {
namespace {

using Body = std::function<void(int64_t, int64_t)>;

// Chunks are claimed by a counter; whoever claims past the end is done.
class Job {
 public:
  Job(int64_t count, int64_t chunk, const Body& body) : count_(count), chunk_(chunk), body_(body) {}

  void work() noexcept {
    for (;;) {
      const int64_t begin = next_.fetch_add(chunk_, std::memory_order_relaxed);
      if (begin >= count_) return;
      try {
        body_(begin, begin + chunk_ < count_ ? begin + chunk_ : count_);
      } catch (...) {
        next_.store(count_, std::memory_order_relaxed);
        const std::lock_guard<std::mutex> lock(mutex_);
        if (!error_) error_ = std::current_exception();
      }
    }
  }

  // Only once no thread works on it any more.
  void rethrow() const {
    if (error_) std::rethrow_exception(error_);
  }

 private:
  const int64_t count_;
  const int64_t chunk_;
  const Body& body_;
  std::atomic<int64_t> next_{0};
  std::mutex mutex_;
  std::exception_ptr error_;
};

class Pool {
 public:
  // False if another thread has the pool.
  bool run(Job& job, int helpers) {
    std::unique_lock<std::mutex> owner(owner_, std::try_to_lock);
    if (!owner.owns_lock()) return false;
    helpers = std::min(helpers, grow(helpers));
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      job_ = &job;
      wanted_ = helpers;
      running_ = helpers;
      ++round_;
    }
    started_.notify_all();
    job.work();
    std::unique_lock<std::mutex> lock(mutex_);
    finished_.wait(lock, [this] { return running_ == 0; });
    job_ = nullptr;
    return true;
  }

 private:
  // How many workers there are in the end: the system may refuse to start another.
  int grow(int wanted) {
    try {
      while (workers_ < wanted) {
        std::thread([this, index = workers_] { serve(index); }).detach();
        ++workers_;
      }
    } catch (const std::system_error&) {
    }
    return workers_;
  }

  [[noreturn]] void serve(int index) {
    uint64_t seen = 0;
    for (;;) {
      Job* job = nullptr;
      {
        std::unique_lock<std::mutex> lock(mutex_);
        started_.wait(lock, [&] { return round_ != seen; });
        seen = round_;
        if (index >= wanted_) continue;
        job = job_;
      }
      job->work();
      const std::lock_guard<std::mutex> lock(mutex_);
      if (--running_ == 0) finished_.notify_one();
    }
  }

  std::mutex owner_;  // held by the thread whose job runs; guards workers_
  int workers_ = 0;   //
  std::mutex mutex_;  // guards all that follows
  std::condition_variable started_;
  std::condition_variable finished_;
  Job* job_ = nullptr;
  int wanted_ = 0;      // workers 0 .. wanted_ - 1 take part in this round
  int running_ = 0;     // of these, how many are not done
  uint64_t round_ = 0;  //
};

// Never destroyed: workers may still wait on it while the process exits.
std::atomic<Pool*> the_pool{nullptr};

// The threads of the parent do not exist in the child, and a mutex of its pool may be held by one
// of them: leave that pool alone and let the next call make another.
void forget_pool() { the_pool.store(nullptr, std::memory_order_relaxed); }

Pool& pool() {
  Pool* current = the_pool.load(std::memory_order_acquire);
  if (current != nullptr) return *current;
  static std::atomic<bool> watching{false};
  if (!watching.exchange(true)) pthread_atfork(nullptr, nullptr, &forget_pool);
  Pool* made = new Pool;
  if (the_pool.compare_exchange_strong(current, made, std::memory_order_acq_rel)) return *made;
  delete made;
  return *current;
}

int cores() {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return std::max(1, CPU_COUNT(&set));
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

int default_threads() {
  constexpr long kMost = 1024;
  const char* text = std::getenv("COGIT_NUM_THREADS");
  if (text == nullptr || *text == '\0') return cores();
  char* end = nullptr;
  const long threads = std::strtol(text, &end, 10);
  if (*end != '\0' || threads < 1 || threads > kMost) {
    throw std::invalid_argument("[COGIT_NUM_THREADS] expected a number from 1 to " +
                                std::to_string(kMost) + ", got '" + text +
                                "'; set one or leave it unset");
  }
  return static_cast<int>(threads);
}

std::atomic<int> threads_allowed{0};

}  // namespace

int thread_count() {
  int threads = threads_allowed.load(std::memory_order_relaxed);
  if (threads == 0) {
    threads = default_threads();
    threads_allowed.store(threads, std::memory_order_relaxed);
  }
  return threads;
}

void set_thread_count(int threads) { threads_allowed.store(threads, std::memory_order_relaxed); }

void parallel_for(int64_t count, int64_t chunk, int threads, const Body& body) {
  if (count <= 0) return;
  const int64_t chunks = (count + chunk - 1) / chunk;
  const int64_t helpers = (threads < chunks ? threads : chunks) - 1;
  Job job(count, chunk, body);
  if (helpers < 1 || !pool().run(job, static_cast<int>(helpers))) job.work();
  job.rethrow();
}

}  // namespace cogit
