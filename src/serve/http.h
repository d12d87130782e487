// HTTP/1.1 over TCP: connections, limits, timeouts and server-sent events; knows no JSON, route or
// engine. Requests arrive whole; an answer may be completed from any thread, later.
//
// Threads: the network threads only move bytes; handlers run on handler threads, so slow parsing
// never holds up a stream. Everything here may be called from any thread.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/status.h"

namespace rk::serve {

using Headers = std::vector<std::pair<std::string, std::string>>;

struct HttpRequest {
  std::string method, target;  ///< as sent
  std::string path, query;     ///< target before and after '?'; the path is not decoded
  Headers headers;             ///< names in lower case
  std::string body;
  std::string remote;  ///< "127.0.0.1:4711"

  /// First value of a header (name in lower case), or "".
  std::string_view header(std::string_view name) const;
};

struct HttpReply {
  int status = 200;
  Headers headers;  ///< Content-Length, Connection and Date are added; line breaks are dropped
  std::string body;
};

/// The answer to one request. Thread-safe; nothing blocks. Dropping the last reference before the
/// answer is complete answers 500, or cuts a stream that has begun.
class Responder {
 public:
  virtual ~Responder() = default;
  /// The whole answer. Only the first send or begin_stream counts.
  virtual void send(HttpReply reply) = 0;
  /// Starts an answer of unknown length (reply.body is its first part); then write() and end().
  virtual void begin_stream(HttpReply reply) = 0;
  /// False when the client is gone, or read so slowly that the buffer is full: it is then cut off.
  virtual bool write(std::string data) = 0;
  virtual void end() = 0;
  /// Called at most once, from a network thread, when the client leaves before the answer is
  /// complete; at once if it has left already.
  virtual void on_disconnect(std::function<void()> callback) = 0;
  virtual bool disconnected() const = 0;
};

class HttpServer {
 public:
  using Handler = std::function<void(HttpRequest, std::shared_ptr<Responder>)>;
  /// Sees a request without its body, on a network thread; a reply ends the matter there (unknown
  /// route, no key, health), and the body is never read into memory.
  using Early = std::function<std::optional<HttpReply>(const HttpRequest&)>;
  /// The reply to a request that never reached a handler (malformed, too large, too slow).
  using ErrorReply = std::function<HttpReply(int status, const std::string& message)>;

  struct Options {
    std::string host = "127.0.0.1";      ///< an address, or "localhost"
    int port = 8080;                     ///< 0 = any free one
    int network_threads = 2;             ///< move bytes
    int handler_threads = 2;             ///< parse and tokenise
    int max_connections = 1024;          ///< more are answered 503 and closed
    size_t max_header_bytes = 32 << 10;  ///< request line and headers
    size_t max_body_bytes = 16 << 20;    ///< of one request
    size_t max_unsent_bytes = 1 << 20;   ///< of one stream, before its client counts as too slow
    int idle_timeout_ms = 75'000;        ///< between requests of one connection
    int header_timeout_ms = 15'000;      ///< from a request's first byte to the end of its headers
    int body_timeout_ms = 60'000;        ///< from there to the end of its body
    int write_timeout_ms = 30'000;       ///< without the client taking a byte
    /// Further headers of every answer to a request whose own headers arrived. Thread-safe.
    std::function<Headers(const HttpRequest&)> extra_headers = {};
  };

  /// Listens and serves until stop(). Errors: kInvalidArgument for a bad address, kUnavailable when
  /// the port cannot be had.
  static Result<std::unique_ptr<HttpServer>> start(const Options& options, Handler handler,
                                                   Early early, ErrorReply error_reply);
  ~HttpServer();  ///< stop(0)

  int port() const;
  int num_connections() const;
  /// Stops accepting, closes idle connections, waits for answers in progress, then cuts the rest.
  /// Errors: kDeadline with the number that was cut. May be called again; not from a handler.
  Status stop(int timeout_ms);

  struct Impl;  ///< in http.cc

 private:
  explicit HttpServer(std::shared_ptr<Impl> impl);
  std::shared_ptr<Impl> impl_;
};

/// ASCII letters in lower case, every other byte as it is.
std::string lower_ascii(std::string_view text);
/// "Not Found" for 404, "" for a status that has no name here.
const char* http_reason(int status);
/// Undoes %XX. Empty for a bad escape or one that yields NUL.
std::optional<std::string> percent_decode(std::string_view text);

}  // namespace rk::serve
