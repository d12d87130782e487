#include "engine/service.h"

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>
#include <vector>

namespace rk::engine {
namespace {

using Clock = std::chrono::steady_clock;

double ms_since(Clock::time_point start) {
  return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

struct Job {
  Request request;
  std::shared_ptr<Listener> listener;
  Clock::time_point submitted;
};

// Adds the service's own cancellation to a listener and sees to it that on_done is called once.
class Guarded : public Listener {
 public:
  Guarded(Listener& listener, const std::atomic<bool>& abort)
      : listener_(listener), abort_(abort) {}
  bool on_token(const TokenEvent& event) override { return listener_.on_token(event) && !abort_; }
  void on_done(const Outcome& outcome) override {
    if (done_) return;
    done_ = true;
    listener_.on_done(outcome);
  }
  bool cancelled() const override { return abort_ || listener_.cancelled(); }
  bool done() const { return done_; }

 private:
  Listener& listener_;
  const std::atomic<bool>& abort_;
  bool done_ = false;
};

void finish(const Job& job, FinishReason reason, Status status) {
  Outcome outcome;
  outcome.finish = reason;
  outcome.status = std::move(status);
  outcome.stats.mode = job.request.mode;
  outcome.stats.queue_ms = outcome.stats.total_ms = ms_since(job.submitted);
  job.listener->on_done(outcome);
}

}  // namespace

struct Service::State {
  std::unique_ptr<Runner> runner;
  Options options;
  mutable std::mutex mutex;
  std::condition_variable wake, idle;
  std::deque<Job> queue;  // under mutex, as the next three
  bool running = false, draining = false, stop = false;
  std::atomic<bool> abort{false};  // the running request ends at its next step
  std::thread thread;

  void loop() {
    std::unique_lock lock(mutex);
    for (;;) {
      const auto wanted = [&] { return stop || !queue.empty(); };
      for (bool more = true; more && !wanted() && !draining;) {
        lock.unlock();
        more = runner->idle_work();
        lock.lock();
      }
      wake.wait(lock, wanted);
      if (queue.empty()) return;
      const Job job = std::move(queue.front());
      queue.pop_front();
      running = true;
      const bool refuse = stop || abort;
      lock.unlock();
      if (refuse) {
        finish(job, FinishReason::kError, unavailable("the server is shutting down"));
      } else {
        run(job);
      }
      lock.lock();
      running = false;
      if (queue.empty()) idle.notify_all();
    }
  }
  void run(const Job& job) {
    if (job.listener->cancelled()) return finish(job, FinishReason::kCancelled, {});
    Guarded guarded(*job.listener, abort);
    runner->run(job.request, ms_since(job.submitted), guarded);
    if (!guarded.done())
      finish(job, FinishReason::kError, internal("the engine ended without a word"));
  }
};

Service::Service(std::unique_ptr<Runner> runner, const Options& options)
    : state_(std::make_unique<State>()) {
  state_->runner = std::move(runner);
  state_->options = options;
  state_->thread = std::thread([state = state_.get()] { state->loop(); });
}

Service::~Service() {
  {
    const std::lock_guard lock(state_->mutex);
    state_->draining = state_->stop = true;
    state_->abort = true;
  }
  state_->wake.notify_all();
  state_->thread.join();
}

Status Service::submit(Request request, std::shared_ptr<Listener> listener) {
  RK_RETURN_IF_ERROR(state_->runner->check(request));
  std::vector<Job> left;  // their callers left while they waited: they give up their places
  Status status;
  {
    const std::lock_guard lock(state_->mutex);
    auto& queue = state_->queue;
    const auto limit = static_cast<size_t>(state_->options.max_queued);
    // The job that an idle engine thread is about to take does not wait.
    const auto waiting = [&] { return queue.size() + (state_->running ? 1 : 0); };
    if (waiting() > limit) {
      for (auto it = queue.begin(); it != queue.end();) {
        if (!it->listener->cancelled()) {
          ++it;
          continue;
        }
        left.push_back(std::move(*it));
        it = queue.erase(it);
      }
    }
    if (state_->draining) {
      status = unavailable("the server is shutting down");
    } else if (waiting() > limit) {
      status = exhausted("queue: ", queue.size(), " requests wait, ", limit, " may");
    } else {
      queue.push_back({std::move(request), std::move(listener), Clock::now()});
    }
  }
  state_->wake.notify_all();
  for (const Job& job : left) finish(job, FinishReason::kCancelled, {});
  return status;
}

Status Service::drain(int timeout_ms) {
  std::unique_lock lock(state_->mutex);
  state_->draining = true;
  const auto done = [&] { return !state_->running && state_->queue.empty(); };
  if (state_->idle.wait_for(lock, std::chrono::milliseconds(timeout_ms), done)) return {};
  const size_t rest = state_->queue.size() + (state_->running ? 1 : 0);
  state_->abort = true;
  state_->idle.wait(lock, done);  // bounded by one engine step
  return deadline("drain: ", rest, " requests cancelled after ", timeout_ms, " ms");
}

Service::Load Service::load() const {
  const std::lock_guard lock(state_->mutex);
  return {state_->running ? 1 : 0, static_cast<int>(state_->queue.size())};
}

const Runner& Service::runner() const { return *state_->runner; }

}  // namespace rk::engine
