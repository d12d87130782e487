// One strand per connection. A single read is always outstanding: it feeds the parser while a
// request arrives and watches for the client's leaving while its answer is made. Beast parses, we
// write (http_wire.h). Longer than our files should be: Asio and Beast are slow to compile, so all
// that needs them is in this one file.
#include "serve/http.h"

#ifdef __SANITIZE_THREAD__
#define BOOST_ASIO_DISABLE_FENCED_BLOCK  // the sanitizer knows no stand-alone fences
#endif

#include <algorithm>
#include <atomic>
#include <boost/asio/bind_executor.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/thread_pool.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/error.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <set>
#include <thread>

#include "base/log.h"
#include "serve/http_wire.h"

namespace rk::serve {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
using asio::ip::tcp;
using boost::system::error_code;
using std::chrono::milliseconds;

constexpr size_t kReadBytes = 64 << 10;
constexpr size_t kMaxPipelinedBytes = 256
                                      << 10;  // kept while an answer is made; then no more reads
constexpr size_t kMaxLingerBytes = 64 << 20;  // discarded after the last answer
constexpr int kLingerMs = 1000;               // so that the client reads it before a reset

class Connection;

}  // namespace

struct HttpServer::Impl : std::enable_shared_from_this<HttpServer::Impl> {
  Options options;
  Handler handler;
  Early early;
  ErrorReply error_reply;
  asio::io_context io;
  asio::thread_pool handlers;
  tcp::acceptor acceptor{io};
  asio::steady_timer accept_pause{io};
  std::vector<std::thread> threads;
  std::atomic<bool> stopping{false}, stopped{false};
  int port = 0;
  mutable std::mutex mutex;
  std::condition_variable closed;
  std::set<Connection*> connections;  // under mutex; each removes itself when it closes

  explicit Impl(const Options& o) : options(o), handlers(std::max(1, o.handler_threads)) {}
  Status listen();
  void accept();
  void admit(tcp::socket socket);
  template <class F>
  void for_each(const F& f);
};

namespace {

class Connection : public std::enable_shared_from_this<Connection> {
 public:
  using Impl = HttpServer::Impl;
  Connection(std::shared_ptr<void> owner, Impl& server, tcp::socket socket)
      : owner_(std::move(owner)),
        server_(server),
        socket_(std::move(socket)),
        timer_(socket_.get_executor()) {
    error_code ec;
    const auto peer = socket_.remote_endpoint(ec);
    if (!ec) remote_ = cat(peer.address().to_string(), ":", peer.port());
    socket_.set_option(tcp::no_delay(true), ec);
  }
  ~Connection() { leave_server(); }

  void start() {
    post([](Connection& c) { c.next_request(); });
  }
  void refuse(HttpReply reply) {
    post([reply = std::move(reply)](Connection& c) mutable {
      c.answer_and_close(std::move(reply));
    });
  }
  /// Closes when idle, otherwise after the answer in progress; `now` cuts it.
  void shut_down(bool now) {
    post([now](Connection& c) {
      if (now || c.state_ == State::kIdle) c.close();
    });
  }

  // The Responder's side; each runs on the strand.
  template <class F>
  void post(F f) {
    if (server_.stopped) return;  // nobody runs it any more
    asio::post(socket_.get_executor(),
               [self = shared_from_this(), f = std::move(f)]() mutable { f(*self); });
  }
  void send(HttpReply reply, bool stream) {
    if (state_ != State::kAnswering) return;
    streaming_ = stream;
    keep_alive_ = keep_alive_ && !server_.stopping && !(stream && version_ < 11);
    chunked_ = stream && version_ >= 11;
    std::string body = std::move(reply.body);
    enqueue(reply_head(reply, extra_headers_,
                       {.content_length = stream ? -1 : static_cast<int64_t>(body.size()),
                        .chunked = chunked_,
                        .keep_alive = keep_alive_}));
    if (is_head_) body.clear();
    if (!body.empty()) enqueue(chunked_ ? http_chunk(body) : std::move(body));
    if (!stream) finish();
  }
  void stream(std::string data) {
    if (state_ == State::kAnswering && streaming_ && !data.empty() && !is_head_) {
      enqueue(chunked_ ? http_chunk(data) : std::move(data), data.size());
    }
  }
  void end_stream() {
    if (state_ != State::kAnswering || !streaming_) return;
    if (chunked_ && !is_head_) enqueue("0\r\n\r\n");
    finish();
  }
  void unanswered() { send(server_.error_reply(500, "the request was not answered"), false); }
  void abandon() {
    if (state_ == State::kAnswering) close();
  }

 private:
  enum class State { kIdle, kHead, kBody, kAnswering, kFinishing, kLingering, kClosed };

  void arm(int timeout_ms) {
    const uint64_t turn = ++timer_turn_;
    timer_.expires_after(milliseconds(timeout_ms));
    timer_.async_wait([self = shared_from_this(), turn](error_code ec) {
      if (!ec && turn == self->timer_turn_) self->timed_out();
    });
  }
  void disarm() {
    ++timer_turn_;
    timer_.cancel();
  }
  void timed_out() {
    switch (state_) {
      case State::kHead:
        return fail(408, "the request's headers did not arrive in time");
      case State::kBody:
        return fail(408, "the request's body did not arrive in time");
      default:
        return close();
    }
  }

  void next_request() {
    if (state_ == State::kClosed) return;
    parser_.emplace();
    parser_->header_limit(static_cast<uint32_t>(server_.options.max_header_bytes));
    parser_->body_limit(server_.options.max_body_bytes);
    state_ = State::kIdle;
    exchange_.reset();
    extra_headers_.clear();
    streaming_ = chunked_ = is_head_ = has_request_line_ = false;
    if (server_.stopping) return close();
    arm(server_.options.idle_timeout_ms);
    parse();
  }

  void read() {
    if (reading_ || state_ == State::kClosed) return;
    reading_ = true;
    socket_.async_read_some(buffer_.prepare(kReadBytes),
                            [self = shared_from_this()](error_code ec, size_t n) {
                              self->reading_ = false;
                              self->have_read(ec, n);
                            });
  }
  void have_read(error_code ec, size_t n) {
    if (state_ == State::kClosed) return;
    if (ec) {
      if (state_ == State::kFinishing) {  // the answer is complete: let it go out, then close
        keep_alive_ = false;
        return;
      }
      return close();
    }
    buffer_.commit(n);
    switch (state_) {
      case State::kIdle:
      case State::kHead:
      case State::kBody:
        return parse();
      case State::kAnswering:
      case State::kFinishing:
        if (buffer_.size() < kMaxPipelinedBytes) read();
        return;
      case State::kLingering:
        lingered_bytes_ += n;
        buffer_.consume(buffer_.size());
        return lingered_bytes_ > kMaxLingerBytes ? close() : read();
      case State::kClosed:
        return;
    }
  }

  void parse() {
    while (state_ == State::kIdle || state_ == State::kHead || state_ == State::kBody) {
      if (buffer_.size() == 0) return read();
      if (state_ == State::kIdle) {
        state_ = State::kHead;
        arm(server_.options.header_timeout_ms);
      }
      error_code ec;
      const size_t used = parser_->put(buffer_.data(), ec);
      if (ec == http::error::need_more) {
        ec = {};
        if (used == 0) return read();
      }
      if (ec) return parse_failed(ec);
      buffer_.consume(used);
      has_request_line_ = has_request_line_ || used > 0;
      if (state_ == State::kHead && parser_->is_header_done()) have_head();
      if (state_ == State::kBody && parser_->is_done()) have_request();
    }
  }
  void parse_failed(error_code ec) {
    if (ec == http::error::body_limit) {
      return fail(413, cat("the body is larger than ", server_.options.max_body_bytes, " bytes"));
    }
    if (ec == http::error::header_limit || ec == http::error::buffer_overflow) {
      // The request line alone is too long where it does not end within the limit; how much of the
      // rest has arrived by now is chance.
      const auto bytes = static_cast<const char*>(buffer_.data().data());
      const auto end = bytes + std::min<size_t>(buffer_.size(), server_.options.max_header_bytes);
      const bool in_target = !has_request_line_ && std::find(bytes, end, '\n') == end;
      return fail(in_target ? 414 : 431, cat("the request's head is larger than ",
                                             server_.options.max_header_bytes, " bytes"));
    }
    if (ec == http::error::bad_version) return fail(505, "only HTTP/1.0 and HTTP/1.1 are spoken");
    fail(400, cat("malformed HTTP request: ", ec.message()));
  }

  void have_head() {
    const auto& message = parser_->get();
    request_ = {};
    request_.method = std::string(message.method_string());
    request_.target = std::string(message.target());
    request_.path = request_.target.substr(0, request_.target.find('?'));
    if (request_.path.size() < request_.target.size()) {
      request_.query = request_.target.substr(request_.path.size() + 1);
    }
    for (const auto& field : message) {
      request_.headers.emplace_back(lower_ascii(field.name_string()), std::string(field.value()));
    }
    request_.remote = remote_;
    version_ = message.version();
    if (server_.options.extra_headers) extra_headers_ = server_.options.extra_headers(request_);
    keep_alive_ = parser_->keep_alive();
    is_head_ = request_.method == "HEAD";
    state_ = State::kBody;
    arm(server_.options.body_timeout_ms);

    if (const auto hosts = message.count(http::field::host); version_ >= 11 && hosts != 1) {
      return fail(400, cat("HTTP/1.1 wants one Host header, this request has ", hosts));
    }
    const std::string_view encoding = request_.header("content-encoding");
    if (!encoding.empty() && lower_ascii(encoding) != "identity") {
      return fail(415, cat("Content-Encoding is not supported"));
    }
    if (auto reply = server_.early(request_)) {
      if (!parser_->is_done()) keep_alive_ = false;  // its body stays unread
      begin_answer();
      return send(std::move(*reply), false);
    }
    const std::string_view expect = request_.header("expect");
    if (!expect.empty()) {
      if (lower_ascii(expect) != "100-continue")
        return fail(417, "only Expect: 100-continue is known");
      if (!parser_->is_done() && buffer_.size() == 0) enqueue("HTTP/1.1 100 Continue\r\n\r\n");
    }
    parser_->eager(true);
  }
  void have_request();  // below Answer

  void begin_answer() {
    disarm();
    state_ = State::kAnswering;
    exchange_ = std::make_shared<Exchange>();
    read();
  }
  void fail(int status, const std::string& message) {
    answer_and_close(server_.error_reply(status, message));
  }
  void answer_and_close(HttpReply reply) {
    keep_alive_ = false;
    if (version_ == 0) version_ = 11;
    begin_answer();
    send(std::move(reply), false);
  }

  // `counted`: bytes of unsent_bytes that this piece gives back when it is out.
  void enqueue(std::string data, size_t counted = 0) {
    out_.push_back({std::move(data), counted, exchange_});
    if (!writing_) write();
  }
  void write() {
    writing_ = true;
    if (state_ != State::kBody) arm(server_.options.write_timeout_ms);
    asio::async_write(socket_, asio::buffer(out_.front().data),
                      [self = shared_from_this()](error_code ec, size_t) { self->written(ec); });
  }
  void written(error_code ec) {
    writing_ = false;
    if (state_ == State::kClosed) return;
    if (ec) return close();
    const Piece& sent = out_.front();
    if (sent.exchange) sent.exchange->unsent_bytes -= sent.counted;
    out_.pop_front();
    if (!out_.empty()) return write();
    if (state_ == State::kAnswering) disarm();
    if (state_ == State::kFinishing) answered();
  }
  void finish() {
    exchange_->forget();
    state_ = State::kFinishing;
    if (!writing_) answered();
  }
  void answered() {
    disarm();
    if (keep_alive_ && !server_.stopping) {
      return post([](Connection& c) { c.next_request(); });  // not recursive: requests may be piped
    }
    error_code ec;
    socket_.shutdown(tcp::socket::shutdown_send, ec);
    if (ec) return close();
    state_ = State::kLingering;
    arm(kLingerMs);
    buffer_.consume(buffer_.size());
    read();
  }
  void leave_server() {
    const std::lock_guard lock(server_.mutex);
    if (server_.connections.erase(this) > 0) server_.closed.notify_all();
  }
  void close() {
    if (state_ == State::kClosed) return;
    const bool answering = state_ == State::kAnswering;
    state_ = State::kClosed;
    disarm();
    error_code ec;
    socket_.close(ec);
    if (answering && exchange_) exchange_->leave();
    leave_server();
  }

  struct Piece {
    std::string data;
    size_t counted;
    std::shared_ptr<Exchange> exchange;
  };
  std::shared_ptr<void> owner_;  // keeps server_ alive
  Impl& server_;
  tcp::socket socket_;
  asio::steady_timer timer_;
  uint64_t timer_turn_ = 0;
  std::string remote_;
  beast::flat_buffer buffer_;
  std::optional<http::request_parser<http::string_body>> parser_;
  HttpRequest request_;
  Headers extra_headers_;
  std::shared_ptr<Exchange> exchange_;
  std::deque<Piece> out_;
  size_t lingered_bytes_ = 0;
  unsigned version_ = 0;  // 11 = HTTP/1.1
  State state_ = State::kIdle;
  bool reading_ = false, writing_ = false, keep_alive_ = false;
  bool streaming_ = false, chunked_ = false, is_head_ = false;
  bool has_request_line_ = false;  ///< the parser has taken it
};

class Answer : public Responder {
 public:
  Answer(std::shared_ptr<Connection> connection, std::shared_ptr<Exchange> exchange,
         size_t max_unsent)
      : connection_(std::move(connection)),
        exchange_(std::move(exchange)),
        max_unsent_(max_unsent) {}
  ~Answer() override {
    if (!begun_) {
      connection_->post([](Connection& c) { c.unanswered(); });
    } else if (streaming_ && !ended_) {
      connection_->post([](Connection& c) { c.abandon(); });
    }
  }
  void send(HttpReply reply) override { begin(std::move(reply), false); }
  void begin_stream(HttpReply reply) override { begin(std::move(reply), true); }
  bool write(std::string data) override {
    if (exchange_->gone || ended_) return false;
    if (exchange_->unsent_bytes.fetch_add(data.size()) + data.size() > max_unsent_) {
      exchange_->leave();
      connection_->post([](Connection& c) { c.abandon(); });
      return false;
    }
    connection_->post([d = std::move(data)](Connection& c) mutable { c.stream(std::move(d)); });
    return true;
  }
  void end() override {
    if (!ended_.exchange(true)) connection_->post([](Connection& c) { c.end_stream(); });
  }
  void on_disconnect(std::function<void()> callback) override {
    {
      const std::lock_guard lock(exchange_->mutex);
      if (!exchange_->gone) {
        exchange_->callback = std::move(callback);
        return;
      }
    }
    callback();
  }
  bool disconnected() const override { return exchange_->gone; }

 private:
  void begin(HttpReply reply, bool stream) {
    if (begun_.exchange(true)) return;
    streaming_ = stream;
    connection_->post(
        [r = std::move(reply), stream](Connection& c) mutable { c.send(std::move(r), stream); });
  }
  std::shared_ptr<Connection> connection_;
  std::shared_ptr<Exchange> exchange_;
  size_t max_unsent_;
  std::atomic<bool> begun_{false}, streaming_{false}, ended_{false};
};

void Connection::have_request() {
  request_.body = std::move(parser_->get().body());
  begin_answer();
  auto answer =
      std::make_shared<Answer>(shared_from_this(), exchange_, server_.options.max_unsent_bytes);
  asio::post(server_.handlers, [this, answer, request = std::move(request_)]() mutable {
    try {
      server_.handler(std::move(request), std::move(answer));
    } catch (const std::exception& error) {  // out of memory, say: `answer` says 500
      log::error("http: a handler threw: ", error.what());
    }
  });
}

}  // namespace

Status HttpServer::Impl::listen() {
  error_code ec;
  const std::string name = options.host == "localhost" ? "127.0.0.1" : options.host;
  const auto address = asio::ip::make_address(name, ec);
  if (ec) return invalid_argument("host: \"", options.host, "\" is not an address");
  if (options.port < 0 || options.port > 65535) {
    return invalid_argument("port: ", options.port, " is outside 0..65535");
  }
  const tcp::endpoint endpoint(address, static_cast<uint16_t>(options.port));
  acceptor.open(endpoint.protocol(), ec);
  if (!ec) acceptor.set_option(tcp::acceptor::reuse_address(true), ec);
  if (!ec) acceptor.bind(endpoint, ec);
  if (!ec) acceptor.listen(asio::socket_base::max_listen_connections, ec);
  if (ec)
    return unavailable("cannot listen on ", options.host, ":", options.port, ": ", ec.message());
  port = acceptor.local_endpoint(ec).port();
  return {};
}

void HttpServer::Impl::accept() {
  acceptor.async_accept(asio::make_strand(io), [this](error_code ec, tcp::socket socket) {
    if (stopping || ec == asio::error::operation_aborted) return;
    if (!ec) {
      admit(std::move(socket));
      return accept();
    }
    // Out of file descriptors, most likely: wait instead of spinning.
    accept_pause.expires_after(milliseconds(50));
    accept_pause.async_wait([this](error_code e) {
      if (!e && !stopping) accept();
    });
  });
}

void HttpServer::Impl::admit(tcp::socket socket) {
  auto connection = std::make_shared<Connection>(shared_from_this(), *this, std::move(socket));
  size_t open = 0;
  {
    const std::lock_guard lock(mutex);
    connections.insert(connection.get());
    open = connections.size();
  }
  const size_t limit = static_cast<size_t>(std::max(1, options.max_connections));
  if (open <= limit) return connection->start();
  if (open > 2 * limit) return;  // not even a refusal: closed by its destructor
  connection->refuse(
      error_reply(503, cat("too many connections: ", open, " open, ", limit, " allowed")));
}

template <class F>
void HttpServer::Impl::for_each(const F& f) {
  std::vector<std::shared_ptr<Connection>> all;
  {
    const std::lock_guard lock(mutex);
    for (Connection* c : connections) {
      if (auto held = c->weak_from_this().lock()) all.push_back(std::move(held));
    }
  }
  for (const auto& c : all) f(*c);
}

HttpServer::HttpServer(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}
HttpServer::~HttpServer() { (void)stop(0); }
int HttpServer::port() const { return impl_->port; }
int HttpServer::num_connections() const {
  const std::lock_guard lock(impl_->mutex);
  return static_cast<int>(impl_->connections.size());
}

Result<std::unique_ptr<HttpServer>> HttpServer::start(const Options& options, Handler handler,
                                                      Early early, ErrorReply error_reply) {
  auto impl = std::make_shared<Impl>(options);
  impl->handler = std::move(handler);
  impl->early = std::move(early);
  impl->error_reply = std::move(error_reply);
  RK_RETURN_IF_ERROR(impl->listen());
  impl->accept();
  for (int i = 0; i < std::max(1, options.network_threads); ++i) {
    impl->threads.emplace_back([server = impl.get()] {
      const auto work = asio::make_work_guard(server->io);
      server->io.run();
    });
  }
  return std::unique_ptr<HttpServer>(new HttpServer(std::move(impl)));
}

Status HttpServer::stop(int timeout_ms) {
  Impl& server = *impl_;
  if (server.threads.empty()) return {};
  server.stopping = true;
  asio::post(server.io, [&server] {
    error_code ec;
    server.acceptor.close(ec);
    server.accept_pause.cancel();
  });
  server.for_each([](Connection& c) { c.shut_down(false); });
  const auto wait = [&server](int ms) {
    std::unique_lock lock(server.mutex);
    server.closed.wait_for(lock, milliseconds(ms), [&] { return server.connections.empty(); });
    return server.connections.size();
  };
  const size_t left = wait(timeout_ms);
  if (left > 0) {
    server.for_each([](Connection& c) { c.shut_down(true); });
    wait(2000);
  }
  server.handlers.join();
  server.io.stop();
  for (std::thread& thread : server.threads) thread.join();
  server.threads.clear();
  server.stopped = true;
  server.io.restart();
  server.io.poll();  // lets go of the connections that aborted operations hold
  return left == 0 ? Status()
                   : deadline("http: ", left, " connections cut after ", timeout_ms, " ms");
}

}  // namespace rk::serve
