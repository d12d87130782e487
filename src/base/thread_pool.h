// A fixed team of threads for data-parallel loops inside one step. The caller works too, so a team
// of one runs everything inline. Short loops follow each other within microseconds, so idle workers
// spin for a while before they sleep. One caller at a time (the engine thread).
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

namespace rk {

class ThreadPool {
 public:
  /// `num_threads` counts the caller; values below 1 mean the cores this process may use.
  explicit ThreadPool(int num_threads = 0);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int num_threads() const;

  /// Runs body(begin, end, thread) over disjoint chunks that cover [0, n). Chunks of `grain`
  /// indices are handed out dynamically; returns when all are done. `thread` < num_threads() names
  /// the worker, for scratch. Never nest. body must not throw.
  void parallel_for(int64_t n, int64_t grain,
                    const std::function<void(int64_t begin, int64_t end, int thread)>& body);

 private:
  struct Team;
  std::unique_ptr<Team> team_;
};

/// Cores this process may run on (affinity and cgroup quota respected), at least 1.
int usable_cores();

}  // namespace rk
