// Whatever bytes a client sends over its connection: a real server on loopback, over an engine
// without a model, answers in HTTP or hangs up, and goes on. Slower than the others: each input is
// a connection.
#include <sys/socket.h>

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/check.h"
#include "serve/fake_engine.h"
#include "serve/raw_client.h"
#include "serve/server.h"

namespace rk::serve {
namespace {

struct World {
  FakeEngineState state;
  FakeTokenizer tokenizer;
  text::ChatTemplate chat = text::ChatTemplate::parse(kFakeChatTemplate).value();
  engine::Service service{std::make_unique<FakeRunner>(state), {}};
  std::unique_ptr<Server> server;

  World() {
    state.remembers = false;
    state.fail_word = "";
    Server::Options options;
    options.http.port = 0;
    options.http.max_body_bytes = 1 << 16;
    options.http.max_header_bytes = 4 << 10;
    server =
        Server::start(options, service, tokenizer, &chat, {"fake/model", 4096, 1700000000}).value();
  }
};

void send(std::string_view bytes) {
  static World& world = *new World;  // no destructors at exit, while libFuzzer's threads end
  RawClient client(world.server->port());
  RK_CHECK(client.connected());
  client.send(bytes);  // may fail: the server has answered and closed
  client.half_close();
  const std::string answers = client.read_all();
  RK_CHECK(answers.empty() || answers.starts_with("HTTP/1.1 "));
  const std::string_view status = std::string_view(answers).substr(0, 12);
  RK_CHECK(answers.empty() || (status[9] >= '1' && status[9] <= '5' && status != "HTTP/1.1 500"));
}

}  // namespace
}  // namespace rk::serve

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  rk::serve::send({reinterpret_cast<const char*>(data), size});
  return 0;
}
