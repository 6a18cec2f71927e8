// Run f(0) ... f(n_tasks - 1) on XLA's own thread pool. Tasks are claimed from a counter, so what a
// task computes must not depend on which thread runs it: results are then the same for any number of
// threads. The caller claims tasks too and waits only for tasks that somebody has started, so a pool
// without a free thread cannot deadlock.
#pragma once
#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <utility>

#include "xla/ffi/api/ffi.h"

class Pool {
 public:
  // n_threads: 0 = all threads of the pool.
  Pool(xla::ffi::ThreadPool& pool, int64_t n_threads) : pool_(pool) {
    int64_t all = std::max<int64_t>(1, pool.num_threads());
    n_threads_ = (int)(n_threads <= 0 ? all : std::min(n_threads, all));
  }

  int threads() const { return n_threads_; }

  // How many parts to cut work into whose result is the same however it is cut.
  int parts() const { return n_threads_ == 1 ? 1 : std::min(4 * n_threads_, 32); }

  // First of the n items of part c out of parts().
  int begin(int n, int c) const { return begin(n, c, parts()); }
  static int begin(int n, int c, int parts) { return (int)((int64_t)n * c / parts); }

  template <class F>
  void run(int n_tasks, F f) {
    int n = std::min(n_tasks, n_threads_);
    if (n <= 1) {
      for (int i = 0; i < n_tasks; i++) f(i);
      return;
    }
    struct State {
      std::atomic<int> next{0}, done{0};
      std::mutex m;
      std::condition_variable cv;
    };
    auto s = std::make_shared<State>();
    auto work = [s, f, n_tasks]() {
      int finished = 0;
      for (int i; (i = s->next.fetch_add(1)) < n_tasks; finished++) f(i);
      if (finished && s->done.fetch_add(finished) + finished == n_tasks) {
        std::lock_guard<std::mutex> lock(s->m);
        s->cv.notify_all();
      }
    };
    for (int i = 1; i < n; i++) {
      auto copy = work;
      pool_.Schedule(std::move(copy));  // Schedule takes an rvalue only
    }
    work();
    for (int spin = 0; spin < 4000 && s->done.load() < n_tasks; spin++) __builtin_ia32_pause();
    std::unique_lock<std::mutex> lock(s->m);
    s->cv.wait(lock, [&] { return s->done.load() == n_tasks; });
  }

 private:
  xla::ffi::ThreadPool& pool_;
  int n_threads_;
};
