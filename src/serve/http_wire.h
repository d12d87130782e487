// What an answer looks like on the wire, and what the threads that make and send it share. Pure
// functions and a small monitor; no sockets.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <mutex>
#include <string>

#include "serve/http.h"

namespace rk::serve {

struct ReplyFraming {
  int64_t content_length = -1;  ///< < 0: not known
  bool chunked = false, keep_alive = false;
};
/// Status line and headers up to the empty line. Line breaks within a header are dropped.
std::string reply_head(const HttpReply& reply, const Headers& extra_headers,
                       const ReplyFraming& framing);
/// `data` as one chunk of a chunked body.
std::string http_chunk(const std::string& data);

/// What a connection and the answer in progress share. The answer may outlive the connection.
struct Exchange {
  std::atomic<bool> gone{false};
  std::atomic<size_t> unsent_bytes{0};
  std::mutex mutex;
  std::function<void()> callback;  // under mutex

  void leave() {
    std::function<void()> call;
    {
      const std::lock_guard lock(mutex);
      if (gone.exchange(true)) return;
      call.swap(callback);
    }
    if (call) call();
  }
  void forget() {
    const std::lock_guard lock(mutex);
    callback = nullptr;
  }
};

}  // namespace rk::serve
