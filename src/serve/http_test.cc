#include "serve/http.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "serve/raw_client.h"

namespace rk::serve {
namespace {

using std::chrono::milliseconds;

// Echoes bodies at /echo; at other paths the test's own handler answers.
struct HttpTest : ::testing::Test {
  HttpServer::Options options;
  HttpServer::Handler handler;
  std::unique_ptr<HttpServer> server;

  void start() {
    options.port = 0;
    auto early = [](const HttpRequest& r) -> std::optional<HttpReply> {
      if (r.path == "/early") return HttpReply{404, {}, "early"};
      return std::nullopt;
    };
    auto echo = [this](HttpRequest request, std::shared_ptr<Responder> responder) {
      if (request.path == "/echo") return responder->send({200, {}, request.body});
      handler(std::move(request), std::move(responder));
    };
    auto error = [](int status, const std::string& message) {
      return HttpReply{status, {}, message};
    };
    auto started = HttpServer::start(options, echo, early, error);
    ASSERT_TRUE(started.ok()) << started.status().message();
    server = std::move(started).value();
  }
  void expect_alive() { EXPECT_EQ(post(server->port(), "/echo", "alive").body, "alive"); }
};

bool eventually(const std::function<bool()>& f) {
  for (int i = 0; i < 500; ++i) {
    if (f()) return true;
    std::this_thread::sleep_for(milliseconds(10));
  }
  return false;
}

TEST_F(HttpTest, KeepAliveAndPipelinedRequestsAreAnsweredInOrder) {
  start();
  RawClient client(server->port());
  EXPECT_EQ(client.request("POST", "/echo", "one").body, "one");
  EXPECT_EQ(client.request("POST", "/echo", "").body, "");
  std::string many;
  for (int i = 0; i < 50; ++i) {
    many += cat("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n", 10 + i);
  }
  client.send(many);
  for (int i = 0; i < 50; ++i) EXPECT_EQ(client.read_reply().body, std::to_string(10 + i));
}

TEST_F(HttpTest, Http10AndConnectionCloseEndTheConnection) {
  start();
  RawClient old(server->port());
  old.send("POST /echo HTTP/1.0\r\nContent-Length: 1\r\n\r\nx");
  EXPECT_NE(old.read_all().find("\r\n\r\nx"), std::string::npos);
  RawClient client(server->port());
  client.send("POST /echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 1\r\n\r\ny");
  EXPECT_NE(client.read_all().find("Connection: close\r\n\r\ny"), std::string::npos);
}

TEST_F(HttpTest, StreamsInChunksFromAnotherThread) {
  std::thread writer;
  handler = [&](HttpRequest, std::shared_ptr<Responder> responder) {
    writer = std::thread([responder] {
      responder->begin_stream({200, {{"Content-Type", "text/event-stream"}}, ""});
      for (int i = 0; i < 1000; ++i) EXPECT_TRUE(responder->write("data: x\n\n"));
      responder->end();
    });
  };
  start();
  RawClient client(server->port());
  const RawReply reply = client.request("GET", "/stream");
  EXPECT_EQ(reply.body.size(), 9000U);
  EXPECT_EQ(reply.header("Content-Type"), "text/event-stream");
  EXPECT_EQ(client.request("POST", "/echo", "again").body, "again");  // kept alive
  writer.join();
}

TEST_F(HttpTest, DisconnectIsToldWhileAnAnswerIsMade) {
  std::atomic<int> told{0};
  std::shared_ptr<Responder> held;
  std::mutex mutex;
  handler = [&](HttpRequest, std::shared_ptr<Responder> responder) {
    responder->on_disconnect([&] { ++told; });
    const std::lock_guard lock(mutex);
    held = std::move(responder);
  };
  start();
  {
    RawClient client(server->port());
    client.send("GET /wait HTTP/1.1\r\nHost: x\r\n\r\n");
    ASSERT_TRUE(eventually([&] {
      const std::lock_guard lock(mutex);
      return held != nullptr;
    }));
    EXPECT_EQ(told, 0);
  }
  EXPECT_TRUE(eventually([&] { return told == 1; }));
  EXPECT_TRUE(held->disconnected());
  held->send({200, {}, "too late"});
  held.reset();
  EXPECT_EQ(told, 1);
  expect_alive();
}

TEST_F(HttpTest, AReaderThatNeverReadsIsCutOff) {
  std::atomic<bool> refused{false}, told{false};
  std::thread writer;
  handler = [&](HttpRequest, std::shared_ptr<Responder> responder) {
    responder->on_disconnect([&] { told = true; });
    writer = std::thread([&, responder] {
      responder->begin_stream({200, {}, ""});
      const std::string block(64 << 10, 'x');
      for (int i = 0; i < 4000 && !refused; ++i) refused = !responder->write(block);
    });
  };
  start();
  RawClient client(server->port());
  client.send("GET /flood HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_TRUE(eventually([&] { return refused && told; }));
  writer.join();
  expect_alive();
}

TEST_F(HttpTest, AHandlerThatForgetsToAnswerAnswers500) {
  handler = [](HttpRequest, std::shared_ptr<Responder>) {};
  start();
  EXPECT_EQ(get(server->port(), "/nothing").status, 500);
}

TEST_F(HttpTest, LimitsOnHeadAndBody) {
  options.max_body_bytes = 1000;
  start();
  EXPECT_EQ(post(server->port(), "/echo", std::string(1000, 'x')).status, 200);
  EXPECT_EQ(post(server->port(), "/echo", std::string(1001, 'x')).status, 413);
  RawClient huge(server->port());
  huge.send("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999\r\n\r\n");
  EXPECT_EQ(huge.read_reply().status, 413);
  RawClient chunks(server->port());
  chunks.send("POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
  for (int i = 0; i < 20; ++i) chunks.send(cat("64\r\n", std::string(100, 'x'), "\r\n"));
  EXPECT_EQ(chunks.read_reply().status, 413);
  EXPECT_EQ(get(server->port(), "/" + std::string(64 << 10, 'x')).status, 414);
  EXPECT_EQ(get(server->port(), "/", "A: " + std::string(1 << 20, 'x') + "\r\n").status, 431);
  std::string headers;
  for (int i = 0; i < 10'000; ++i) headers += cat("H", i, ": x\r\n");
  EXPECT_EQ(get(server->port(), "/", headers).status, 431);
  expect_alive();
}

TEST_F(HttpTest, WhichLimitWasHitDoesNotDependOnHowBytesArrive) {
  start();
  const auto pause = [] { std::this_thread::sleep_for(std::chrono::milliseconds(50)); };
  RawClient header(server->port());
  header.send("GET / HTTP/1.1\r\nHost: x\r\n");
  pause();
  header.send("A: " + std::string(100 << 10, 'x'));
  EXPECT_EQ(header.read_reply().status, 431);
  RawClient target(server->port());
  target.send("GET /" + std::string(20 << 10, 'x'));
  pause();
  target.send(std::string(20 << 10, 'x') + " HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_EQ(target.read_reply().status, 414);
}

TEST_F(HttpTest, EarlyRepliesComeWithoutTheBody) {
  start();
  RawClient client(server->port());
  client.send("POST /early HTTP/1.1\r\nHost: x\r\nContent-Length: 5000000\r\n\r\n");
  const RawReply reply = client.read_reply();
  EXPECT_EQ(reply.status, 404);
  EXPECT_EQ(reply.header("Connection"), "close");
}

TEST_F(HttpTest, MalformedRequestsAnswer400) {
  start();
  const char* const requests[] = {
      "garbage\r\n\r\n",
      "GET\r\n\r\n",
      "GET / HTTP/1.1\r\nNo colon\r\n\r\n",
      "GET / HTTP/1.1\r\nA b: x\r\n\r\n",
      "POST /echo HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
      "POST /echo HTTP/1.1\r\nContent-Length: 99999999999999999999999\r\n\r\n",
      "POST /echo HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
      "POST /echo HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
      "POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n0\r\n\r\n",
      "POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
      "POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
      "POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\n",
      "\x16\x03\x01\x02\x00\x01\x00\r\n\r\n",
  };
  for (const char* request : requests) {
    SCOPED_TRACE(request);
    RawClient client(server->port());
    client.send(request);
    const int status = client.read_reply().status;
    EXPECT_TRUE(status == 400 || status == 413) << status;
    expect_alive();
  }
  RawClient http2(server->port());
  http2.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
  EXPECT_EQ(http2.read_reply().status, 505);
}

TEST_F(HttpTest, ContentEncodingAndExpect) {
  start();
  EXPECT_EQ(post(server->port(), "/echo", "x", "Content-Encoding: gzip\r\n").status, 415);
  EXPECT_EQ(post(server->port(), "/echo", "x", "Expect: a-miracle\r\n").status, 417);
  RawClient client(server->port());
  client.send(
      "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n");
  ASSERT_TRUE(client.fill());
  client.send("ok");
  EXPECT_EQ(client.read_reply().body, "ok");
}

TEST_F(HttpTest, SlowHeadersAndBodiesTimeOut) {
  options.header_timeout_ms = options.body_timeout_ms = 200;
  start();
  RawClient head(server->port()), body(server->port());
  head.send("GET / HTTP/1.1\r\nHost:");
  body.send("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc");
  EXPECT_EQ(head.read_reply().status, 408);
  EXPECT_EQ(body.read_reply().status, 408);
  expect_alive();
}

TEST_F(HttpTest, TooManyConnectionsAreRefusedAndRoomComesBack) {
  options.max_connections = 4;
  start();
  {
    std::vector<std::unique_ptr<RawClient>> idle;
    for (int i = 0; i < 4; ++i) idle.push_back(std::make_unique<RawClient>(server->port()));
    EXPECT_TRUE(eventually([&] { return server->num_connections() == 4; }));
    RawClient fifth(server->port());
    EXPECT_EQ(fifth.read_reply().status, 503);
  }
  EXPECT_TRUE(eventually([&] { return server->num_connections() == 0; }));
  expect_alive();
}

TEST_F(HttpTest, StopWaitsForAnswersAndClosesIdleConnections) {
  std::shared_ptr<Responder> held;
  std::atomic<bool> called{false};
  handler = [&](HttpRequest, std::shared_ptr<Responder> responder) {
    held = std::move(responder);
    called = true;
  };
  start();
  RawClient idle(server->port()), busy(server->port());
  idle.request("POST", "/echo", "x");
  busy.send("GET /wait HTTP/1.1\r\nHost: x\r\n\r\n");
  ASSERT_TRUE(eventually([&] { return called.load(); }));
  std::thread stopper([&] { EXPECT_TRUE(server->stop(5000).ok()); });
  EXPECT_EQ(idle.read_all(), "");
  std::this_thread::sleep_for(milliseconds(50));
  held->send({200, {}, "done"});
  held.reset();
  EXPECT_EQ(busy.read_reply().body, "done");
  busy.close();
  stopper.join();
  EXPECT_FALSE(RawClient(server->port()).connected());
}

TEST_F(HttpTest, StopCutsAnswersAfterItsTimeout) {
  std::shared_ptr<Responder> held;
  std::atomic<bool> called{false}, told{false};
  handler = [&](HttpRequest, std::shared_ptr<Responder> responder) {
    responder->on_disconnect([&] { told = true; });
    held = std::move(responder);
    called = true;
  };
  start();
  RawClient busy(server->port());
  busy.send("GET /wait HTTP/1.1\r\nHost: x\r\n\r\n");
  ASSERT_TRUE(eventually([&] { return called.load(); }));
  EXPECT_EQ(server->stop(50).code(), Code::kDeadline);
  EXPECT_TRUE(told);
  server.reset();
  held->send({200, {}, "after the end"});
  held.reset();
}

TEST_F(HttpTest, HeaderValuesCannotBreakLines) {
  handler = [](HttpRequest, std::shared_ptr<Responder> responder) {
    responder->send({200, {{"X-Test", "a\r\nEvil: b"}}, ""});
  };
  start();
  EXPECT_EQ(get(server->port(), "/").header("Evil"), "");
}

TEST(PercentDecode, RefusesBadEscapes) {
  EXPECT_EQ(percent_decode("a%2Fb"), "a/b");
  for (const char* bad : {"%", "%2", "%zz", "%00"}) EXPECT_FALSE(percent_decode(bad)) << bad;
}

TEST(HttpServer, PortInUseIsUnavailable) {
  const auto handler = [](HttpRequest, std::shared_ptr<Responder>) {};
  const auto early = [](const HttpRequest&) { return std::nullopt; };
  const auto error = [](int status, const std::string&) { return HttpReply{status, {}, ""}; };
  HttpServer::Options options;
  options.port = 0;
  auto first = HttpServer::start(options, handler, early, error).value();
  options.port = first->port();
  EXPECT_EQ(HttpServer::start(options, handler, early, error).code(), Code::kUnavailable);
  options.host = "not an address";
  EXPECT_EQ(HttpServer::start(options, handler, early, error).code(), Code::kInvalidArgument);
}

}  // namespace
}  // namespace rk::serve
