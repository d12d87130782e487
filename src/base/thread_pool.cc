#include "base/thread_pool.h"

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

#include "base/cgroup.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace rk {
namespace {

// A decode step has some 200 loops a few microseconds apart; waking a sleeper costs about as much
// as such a loop, so workers stay awake across the gaps.
constexpr auto kSpin = std::chrono::microseconds(80);
constexpr int kMaxThreads = 1024;
constexpr size_t kCacheLine = 64;

void pause_cpu() {
#if defined(__x86_64__)
  _mm_pause();
#else
  std::this_thread::yield();
#endif
}

/// Pauses until done() or kSpin is over; the clock is read only now and then.
template <class Done>
bool spin_until(const Done& done) {
  for (int i = 0; i < 32; ++i) {
    if (done()) return true;
    pause_cpu();
  }
  const auto end = std::chrono::steady_clock::now() + kSpin;
  do {
    for (int i = 0; i < 16; ++i) {
      if (done()) return true;
      pause_cpu();
    }
  } while (std::chrono::steady_clock::now() < end);
  return false;
}

using Body = std::function<void(int64_t, int64_t, int)>;

}  // namespace

// One word carries the protocol: the loop's number, how many workers are inside it, and whether it
// is open. A worker enters by a compare-exchange while it is open; the caller closes it when no
// chunk is left and waits for those inside only. A worker that the system has descheduled therefore
// delays nobody, and finds the door closed when it comes late.
struct ThreadPool::Team {
  static constexpr uint64_t kOpen = 1;
  static constexpr uint64_t kInside = 2;
  static constexpr uint64_t kInsideMask = 0xfffffffe;
  static constexpr int kLoopShift = 32;

  alignas(kCacheLine) std::atomic<uint64_t> state{0};
  alignas(kCacheLine) std::atomic<int64_t> next{0};
  alignas(kCacheLine) std::atomic<int> num_sleeping{0};
  std::atomic<bool> stopping{false};
  std::mutex mutex;
  std::condition_variable wake;
  // Written while the door is closed and nobody is inside.
  int64_t n = 0;
  int64_t grain = 1;
  const Body* body = nullptr;
  std::vector<std::thread> workers;

  static bool is_new(uint64_t state, uint64_t last_loop) {
    return (state & kOpen) != 0 && (state >> kLoopShift) != last_loop;
  }

  void work(int thread) {
    for (;;) {
      const int64_t begin = next.fetch_add(grain, std::memory_order_relaxed);
      if (begin >= n) return;
      (*body)(begin, begin + std::min(grain, n - begin), thread);
    }
  }

  void run_worker(int thread) {
    uint64_t last_loop = 0;
    const auto ready = [&] {
      return is_new(state.load(std::memory_order_acquire), last_loop) ||
             stopping.load(std::memory_order_relaxed);
    };
    for (;;) {
      if (!spin_until(ready)) sleep(last_loop);
      if (stopping.load()) return;
      uint64_t seen = state.load(std::memory_order_relaxed);
      while (is_new(seen, last_loop)) {
        if (!state.compare_exchange_weak(seen, seen + kInside, std::memory_order_acq_rel)) continue;
        last_loop = seen >> kLoopShift;
        work(thread);
        state.fetch_sub(kInside, std::memory_order_release);
        break;
      }
    }
  }

  // The count is raised before the state is looked at, and the caller opens before it looks at the
  // count (both sequentially consistent), so one of the two sees the other.
  void sleep(uint64_t last_loop) {
    std::unique_lock lock(mutex);
    num_sleeping.fetch_add(1);
    wake.wait(lock, [&] { return stopping.load() || is_new(state.load(), last_loop); });
    num_sleeping.fetch_sub(1);
  }

  void wake_sleepers() {
    if (num_sleeping.load() == 0) return;
    { const std::lock_guard lock(mutex); }
    wake.notify_all();
  }
};

ThreadPool::ThreadPool(int num_threads) : team_(std::make_unique<Team>()) {
  if (num_threads < 1) num_threads = usable_cores();
  num_threads = std::min(num_threads, kMaxThreads);
  for (int i = 1; i < num_threads; ++i) {
    team_->workers.emplace_back([team = team_.get(), i] { team->run_worker(i); });
  }
}

ThreadPool::~ThreadPool() {
  team_->stopping.store(true);
  { const std::lock_guard lock(team_->mutex); }
  team_->wake.notify_all();
  for (std::thread& worker : team_->workers) worker.join();
}

int ThreadPool::num_threads() const { return static_cast<int>(team_->workers.size()) + 1; }

void ThreadPool::parallel_for(int64_t n, int64_t grain, const Body& body) {
  if (n <= 0) return;
  grain = std::max<int64_t>(grain, 1);
  Team& team = *team_;
  if (team.workers.empty() || n <= grain) {
    for (int64_t begin = 0; begin < n; begin += std::min(grain, n - begin)) {
      body(begin, begin + std::min(grain, n - begin), 0);
    }
    return;
  }
  team.n = n;
  team.grain = grain;
  team.body = &body;
  team.next.store(0, std::memory_order_relaxed);
  const uint64_t loop = (team.state.load(std::memory_order_relaxed) >> Team::kLoopShift) + 1;
  team.state.store((loop << Team::kLoopShift) | Team::kOpen);
  team.wake_sleepers();
  team.work(0);
  team.state.fetch_and(~Team::kOpen, std::memory_order_acq_rel);
  const auto all_left = [&team] {
    return (team.state.load(std::memory_order_acquire) & Team::kInsideMask) == 0;
  };
  while (!spin_until(all_left)) std::this_thread::yield();
}

int usable_cores() {
  int cores = 0;
  for (int room = 1024; room <= (1 << 18) && cores == 0; room *= 4) {  // EINVAL: set too small
    cpu_set_t* set = CPU_ALLOC(room);
    if (set == nullptr) break;
    const size_t bytes = CPU_ALLOC_SIZE(room);
    if (sched_getaffinity(0, bytes, set) == 0) cores = CPU_COUNT_S(bytes, set);
    CPU_FREE(set);
  }
  if (cores == 0) cores = static_cast<int>(std::thread::hardware_concurrency());
  if (const auto quota = cgroup_limits().cores) {
    cores = std::min(cores, static_cast<int>(std::min(*quota, 1e6)));
  }
  return std::max(cores, 1);
}

}  // namespace rk
