// The `redknot` object of a request and of its answer.
#include "server_fixture.h"

namespace rk::serve {
namespace {

TEST_F(ServerTest, AQualityLetsTheGateChoose) {
  start();
  const auto asked = [&](const char* redknot, int status) {
    return ask("/v1/completions",
               cat("{\"prompt\":\"Hi\",\"max_tokens\":2,\"redknot\":", redknot, "}"), status);
  };
  const json::value answer = asked("{\"quality\":\"balanced\"}", 200);
  EXPECT_EQ(engine.last.mode, engine::Mode::kAuto);
  EXPECT_EQ(engine.last.quality, engine::Level::kBalanced);
  EXPECT_EQ(answer.at("redknot").at("gate").as_string(), "pass");
  EXPECT_EQ(answer.at("redknot").at("quality_used").as_string(), "strict");
  asked("{\"quality\":\"fast\",\"mode\":\"reuse\"}", 200);
  EXPECT_EQ(engine.last.mode, engine::Mode::kReuse);
  asked("{\"quality\":\"none\"}", 400);
  asked("{\"quality\":\"perfect\"}", 400);
  asked("{\"quality\":\"fast\",\"reuse\":\"off\"}", 200);
  EXPECT_EQ(engine.last.mode, engine::Mode::kDense);
}

TEST_F(ServerTest, DocumentsMayChangePlacesWhereAsked) {
  start();
  const auto asked = [&](const char* redknot, int status) {
    return ask("/v1/completions",
               cat("{\"prompt\":\"Hi\",\"documents\":[\"a\",\"b\"],\"max_tokens\":2,\"redknot\":",
                   redknot, "}"),
               status);
  };
  EXPECT_FALSE(asked("{}", 200).at("redknot").as_object().contains("order"));
  EXPECT_FALSE(engine.last.any_order);
  const json::value answer = asked("{\"order\":\"any\"}", 200);
  EXPECT_TRUE(engine.last.any_order);
  EXPECT_EQ(json::serialize(answer.at("redknot").at("order")), "[1,0]");
  asked("{\"order\":\"keep\"}", 200);
  EXPECT_FALSE(engine.last.any_order);
  const json::value error = asked("{\"order\":\"best\"}", 400);
  EXPECT_EQ(error.at("error").at("param").as_string(), "redknot.order");
  asked("{\"order\":7}", 400);
}

}  // namespace
}  // namespace rk::serve
