#include "base/thread_pool.h"

#include <immintrin.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <fstream>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "base/check.h"

namespace rk {

// A loop is published by raising `round`; workers that see a new round take chunks off `next` and
// count themselves out in `busy`. The caller waits until busy is 0, so a round never overlaps the
// next one.
struct ThreadPool::Team {
  static constexpr int kSpins = 20000;  // about 100 us of pause before a worker sleeps

  const std::function<void(int64_t, int64_t, int)>* body = nullptr;
  int64_t n = 0, grain = 1;
  std::atomic<int64_t> next{0};
  std::atomic<uint64_t> round{0};
  std::atomic<int> busy{0};
  std::atomic<int> sleeping{0};
  std::atomic<bool> stop{false};
  std::mutex mutex;
  std::condition_variable wake;
  std::vector<std::thread> workers;

  void take(int thread) {
    for (;;) {
      const int64_t begin = next.fetch_add(grain, std::memory_order_relaxed);
      if (begin >= n) return;
      (*body)(begin, std::min(begin + grain, n), thread);
    }
  }

  void work(int thread) {
    uint64_t seen = 0;
    for (;;) {
      for (int spin = 0; round.load(std::memory_order_acquire) == seen; ++spin) {
        if (stop.load(std::memory_order_relaxed)) return;
        if (spin < kSpins) {
          _mm_pause();
          continue;
        }
        std::unique_lock lock(mutex);
        sleeping.fetch_add(1);
        wake.wait(lock, [&] { return round.load() != seen || stop.load(); });
        sleeping.fetch_sub(1);
      }
      seen = round.load(std::memory_order_acquire);
      take(thread);
      busy.fetch_sub(1, std::memory_order_release);
    }
  }
};

ThreadPool::ThreadPool(int num_threads) : team_(std::make_unique<Team>()) {
  const int count = num_threads < 1 ? usable_cores() : num_threads;
  for (int i = 1; i < count; ++i) {
    team_->workers.emplace_back([team = team_.get(), i] { team->work(i); });
  }
}

ThreadPool::~ThreadPool() {
  {
    const std::lock_guard lock(team_->mutex);
    team_->stop.store(true);
  }
  team_->wake.notify_all();
  for (std::thread& worker : team_->workers) worker.join();
}

int ThreadPool::num_threads() const { return static_cast<int>(team_->workers.size()) + 1; }

void ThreadPool::parallel_for(int64_t n, int64_t grain,
                              const std::function<void(int64_t, int64_t, int)>& body) {
  if (n <= 0) return;
  grain = std::max<int64_t>(grain, 1);
  if (team_->workers.empty() || n <= grain) {
    for (int64_t begin = 0; begin < n; begin += grain) body(begin, std::min(begin + grain, n), 0);
    return;
  }
  Team& t = *team_;
  RK_DCHECK(t.busy.load() == 0);
  t.body = &body;
  t.n = n;
  t.grain = grain;
  t.next.store(0, std::memory_order_relaxed);
  t.busy.store(static_cast<int>(t.workers.size()), std::memory_order_relaxed);
  t.round.fetch_add(1);  // publishes the fields above
  if (t.sleeping.load() > 0) {
    const std::lock_guard lock(t.mutex);
    t.wake.notify_all();
  }
  t.take(0);
  for (int spin = 0; t.busy.load(std::memory_order_acquire) != 0; ++spin) {
    if (spin < Team::kSpins) {
      _mm_pause();
    } else {
      std::this_thread::yield();
    }
  }
}

int usable_cores() {
  cpu_set_t set;
  int cores = 1;
  if (sched_getaffinity(0, sizeof set, &set) == 0) cores = std::max(CPU_COUNT(&set), 1);
  std::ifstream in("/sys/fs/cgroup/cpu.max");
  std::string quota;
  double period = 0;
  if (in >> quota >> period && quota != "max" && period > 0) {
    const double allowed = std::strtod(quota.c_str(), nullptr) / period;
    cores = std::clamp(static_cast<int>(allowed + 0.5), 1, cores);
  }
  return cores;
}

}  // namespace rk
