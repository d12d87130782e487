#include "engine/service.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <thread>

namespace rk::engine {
namespace {

// Emits max_tokens tokens, waiting for `go` before each; refuses max_tokens 0.
struct GatedRunner : Runner {
  std::atomic<bool>* go;
  std::atomic<int>* runs;
  GatedRunner(std::atomic<bool>* g, std::atomic<int>* r) : go(g), runs(r) {}
  void run(const Request& request, double queue_ms, Listener& listener) override {
    ++*runs;
    Outcome outcome;
    outcome.stats.queue_ms = queue_ms;
    for (int i = 0; i < request.max_tokens; ++i) {
      while (!*go && !listener.cancelled())
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
      if (listener.cancelled() || !listener.on_token({i, {}})) {
        outcome.finish = FinishReason::kCancelled;
        break;
      }
    }
    listener.on_done(outcome);
  }
  Status check(const Request& request) const override {
    return request.max_tokens > 0 ? Status() : invalid_argument("max_tokens: 0");
  }
  int64_t context_tokens() const override { return 100; }
  int64_t vocab_size() const override { return 100; }
};

struct Watcher : Listener {
  std::atomic<int> tokens{0}, done{0};
  std::atomic<bool> cancel{false};
  Outcome outcome;
  bool on_token(const TokenEvent&) override {
    ++tokens;
    return true;
  }
  void on_done(const Outcome& o) override {
    outcome = o;
    ++done;
  }
  bool cancelled() const override { return cancel; }
};

struct ServiceTest : ::testing::Test {
  std::atomic<bool> go{false};
  std::atomic<int> runs{0};
  std::unique_ptr<Service> service;
  void start(int max_queued) {
    service = std::make_unique<Service>(std::make_unique<GatedRunner>(&go, &runs),
                                        Service::Options{max_queued});
  }
  std::shared_ptr<Watcher> submit() {
    auto watcher = std::make_shared<Watcher>();
    Request request;
    request.max_tokens = 2;
    EXPECT_TRUE(service->submit(request, watcher).ok());
    return watcher;
  }
};

bool eventually(const std::function<bool()>& f) {
  for (int i = 0; i < 2000 && !f(); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  return f();
}

TEST_F(ServiceTest, RunsInTurnAndRefusesWhatCannotRun) {
  start(8);
  go = true;
  const auto a = submit(), b = submit();
  Request bad;
  bad.max_tokens = 0;
  EXPECT_EQ(service->submit(bad, a).code(), Code::kInvalidArgument);
  EXPECT_TRUE(service->drain(5000).ok());
  EXPECT_EQ(a->done, 1);
  EXPECT_EQ(b->tokens, 2);
  EXPECT_EQ(service->submit({}, a).code(), Code::kUnavailable);
}

TEST_F(ServiceTest, AFullQueueIsExhaustedUntilSomebodyLeaves) {
  start(2);
  const auto running = submit();
  ASSERT_TRUE(eventually([&] { return runs == 1; }));
  const auto first = submit(), second = submit();
  EXPECT_EQ(service->load().queued, 2);
  auto late = std::make_shared<Watcher>();
  const Status full = service->submit({}, late);
  EXPECT_EQ(full.code(), Code::kExhausted);
  EXPECT_EQ(full.message(), "queue: 2 requests wait, 2 may");
  first->cancel = true;
  EXPECT_TRUE(service->submit({}, late).ok());
  EXPECT_EQ(first->done, 1);
  EXPECT_EQ(first->outcome.finish, FinishReason::kCancelled);
  go = true;
  EXPECT_TRUE(service->drain(5000).ok());
  EXPECT_EQ(second->tokens, 2);
  EXPECT_EQ(running->done, 1);
  EXPECT_EQ(runs, 3);  // the one that left never ran
}

TEST_F(ServiceTest, DrainCancelsWhatOutlivesItsTimeout) {
  start(8);
  const auto running = submit(), queued = submit();
  ASSERT_TRUE(eventually([&] { return runs == 1; }));
  EXPECT_EQ(service->drain(20).code(), Code::kDeadline);
  EXPECT_EQ(running->outcome.finish, FinishReason::kCancelled);
  EXPECT_EQ(queued->outcome.status.code(), Code::kUnavailable);
  EXPECT_EQ(runs, 1);
}

TEST_F(ServiceTest, DestructionEndsEveryRequestOnce) {
  start(8);
  const auto running = submit(), queued = submit();
  ASSERT_TRUE(eventually([&] { return runs == 1; }));
  service.reset();
  EXPECT_EQ(running->done, 1);
  EXPECT_EQ(queued->done, 1);
  EXPECT_EQ(queued->outcome.status.code(), Code::kUnavailable);
}

// Always has more to do, in slices of a millisecond; a request finishes at once.
struct IdleRunner : Runner {
  struct Seen {
    std::atomic<int> slices{0}, runs{0};
    std::atomic<bool> inside{false}, overlapped{false}, more{true};
  };
  Seen* seen;
  explicit IdleRunner(Seen* s) : seen(s) {}
  void run(const Request&, double, Listener& listener) override {
    if (seen->inside.exchange(true)) seen->overlapped = true;
    ++seen->runs;
    seen->inside = false;
    listener.on_done({});
  }
  bool idle_work() override {
    if (seen->inside.exchange(true)) seen->overlapped = true;
    ++seen->slices;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    seen->inside = false;
    return seen->more;
  }
  Status check(const Request&) const override { return {}; }
  int64_t context_tokens() const override { return 100; }
  int64_t vocab_size() const override { return 100; }
};

TEST(ServiceIdle, WorksOnlyWhileNothingWaitsAndAfterEveryRequest) {
  IdleRunner::Seen seen;
  {
    Service service(std::make_unique<IdleRunner>(&seen), {});
    ASSERT_TRUE(eventually([&] { return seen.slices > 3; }));
    const auto a = std::make_shared<Watcher>();
    ASSERT_TRUE(service.submit({}, a).ok());
    ASSERT_TRUE(eventually([&] { return a->done == 1; }));
    seen.more = false;
    ASSERT_TRUE(eventually([&] {
      const int before = seen.slices;
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
      return before == seen.slices;
    }));
    const int before = seen.slices;
    ASSERT_TRUE(service.submit({}, a).ok());
    ASSERT_TRUE(eventually([&] { return seen.slices > before; }));  // asked again
    seen.more = true;
    ASSERT_TRUE(service.submit({}, a).ok());
    ASSERT_TRUE(eventually([&] { return seen.runs == 3; }));
    EXPECT_TRUE(service.drain(5000).ok());
  }  // ends although there is always more
  EXPECT_FALSE(seen.overlapped);
}

}  // namespace
}  // namespace rk::engine
