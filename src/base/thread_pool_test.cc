#include "base/thread_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

namespace rk {
namespace {

TEST(ThreadPool, CoversEveryIndexOnce) {
  for (const int threads : {1, 2, 3, 8}) {
    ThreadPool pool(threads);
    ASSERT_EQ(pool.num_threads(), threads);
    for (const int64_t n : {0, 1, 2, 7, 64, 1000}) {
      for (const int64_t grain : {0, 1, 3, 64, 5000}) {
        std::vector<int> hits(static_cast<size_t>(n), 0);
        std::atomic<bool> in_range{true};
        pool.parallel_for(n, grain, [&](int64_t begin, int64_t end, int thread) {
          if (thread < 0 || thread >= threads || begin >= end) in_range = false;
          for (int64_t i = begin; i < end; ++i) ++hits[static_cast<size_t>(i)];
        });
        EXPECT_TRUE(in_range);
        for (const int h : hits) ASSERT_EQ(h, 1);
      }
    }
  }
}

// Plain writes in one loop are read in the next: the loops are ordered (thread sanitizer checks).
TEST(ThreadPool, ManyShortLoopsFollowEachOther) {
  ThreadPool pool(4);
  std::vector<int64_t> sum(64, 0);
  constexpr int kLoops = 3000;
  for (int loop = 0; loop < kLoops; ++loop) {
    pool.parallel_for(64, 4, [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; ++i) sum[static_cast<size_t>(63 - i)] += i;
    });
  }
  for (int64_t i = 0; i < 64; ++i) EXPECT_EQ(sum[static_cast<size_t>(i)], (63 - i) * kLoops);
}

TEST(ThreadPool, SleepersWakeUp) {
  ThreadPool pool(2);
  for (int round = 0; round < 5; ++round) {
    std::this_thread::sleep_for(std::chrono::milliseconds(3));  // workers sleep after 0.1 ms
    std::atomic<int> inside{0};
    std::atomic<bool> met{false};
    pool.parallel_for(2, 1, [&](int64_t, int64_t, int) {
      inside.fetch_add(1);
      const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
      while (inside.load() < 2 && std::chrono::steady_clock::now() < end) std::this_thread::yield();
      if (inside.load() == 2) met = true;
    });
    EXPECT_TRUE(met) << "round " << round << ": the worker never came";
  }
}

TEST(ThreadPool, UsesTheCoresThereAre) {
  EXPECT_GE(usable_cores(), 1);
  EXPECT_EQ(ThreadPool().num_threads(), usable_cores());
}

}  // namespace
}  // namespace rk
