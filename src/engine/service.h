// The engine behind a bounded queue and its own thread, for callers on many threads. Requests are
// served in turn. Thread-safe.
#pragma once

#include <memory>

#include "base/status.h"
#include "engine/request.h"
#include "engine/shadow.h"

namespace rk::engine {

class Engine;

/// What Service needs of an engine; a seam for server tests without a model.
class Runner {
 public:
  virtual ~Runner() = default;
  /// Runs one request to its end, calling `listener`; on_done is called before it returns.
  virtual void run(const Request& request, double queue_ms, Listener& listener) = 0;
  /// kInvalidArgument for a request that can never run (too long, bad ids, bad sampling, bad mode).
  virtual Status check(const Request& request) const = 0;
  virtual int64_t context_tokens() const = 0;
  virtual int64_t vocab_size() const = 0;
  /// Not ok once the device failed: no request will be answered again. Any thread.
  virtual Status health() const { return {}; }
  /// A bounded piece of work for later requests, while none waits; false where there is none left.
  virtual bool idle_work() { return false; }
  /// What shadow checks found so far. Any thread.
  virtual ShadowTracker::Stats shadow_stats() const { return {}; }
};

class Service {
 public:
  struct Options {
    int max_queued = 64;  ///< requests waiting, the running one not counted
  };
  Service(std::unique_ptr<Runner> runner, const Options& options);
  /// Finishes what is queued with kUnavailable and waits for the running one's next step.
  ~Service();

  /// Queues a request. Errors: kInvalidArgument (check), kExhausted with both numbers when the
  /// queue is full, kUnavailable after drain() began; the listener is then not called.
  Status submit(Request request, std::shared_ptr<Listener> listener);
  /// No new requests; returns when all queued ones ended, or kDeadline after `timeout_ms` (the rest
  /// is then cancelled).
  Status drain(int timeout_ms);

  struct Load {
    int running = 0, queued = 0;
  };
  Load load() const;
  const Runner& runner() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace rk::engine
