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

TEST_F(ServerTest, TheGuardianIsAskedForAndNamed) {
  engine.repeats = true;
  start();
  const auto asked = [&](const char* redknot, const char* more = "") {
    return ask("/v1/completions",
               cat("{\"prompt\":\"Hi\",\"max_tokens\":4", more, ",\"redknot\":", redknot, "}"),
               200);
  };
  const auto finish = [](const json::value& answer) {
    return std::string(answer.at("choices").at(0).at("finish_reason").as_string());
  };
  EXPECT_EQ(finish(asked("{}")), "length");
  const json::value stopped = asked("{\"guardian\":true}");
  EXPECT_EQ(finish(stopped), "guardian");
  EXPECT_EQ(stopped.at("usage").at("completion_tokens").as_int64(), 4);
  const RawReply stream =
      post(port(), "/v1/completions",
           R"({"prompt":"Hi","max_tokens":4,"stream":true,"redknot":{"guardian":true}})");
  EXPECT_NE(stream.body.find(R"("finish_reason":"guardian")"), std::string::npos) << stream.body;
  EXPECT_NE(stream.body.find("[DONE]"), std::string::npos);
  EXPECT_EQ(post(port(), "/v1/completions", R"({"prompt":"Hi","redknot":{"guardian":1}})").status,
            400);
}

TEST_F(ServerTest, ShadowChecksAreReported) {
  start();
  EXPECT_EQ(get(port(), "/health").body, "{\"status\":\"ok\"}");
  EXPECT_EQ(get(port(), "/metrics").body.find("redknot_shadow_kl{"), std::string::npos);
}

TEST_F(ServerTest, ShadowChecksThatSwitchedAModeOffAreReported) {
  const auto setting =
      engine::setting_of(engine::Mode::kSelective, 0.15, 0, engine::SelectUnits::kBoth);
  engine.shadow = {.share = 0.1,
                   .num_answers = 90,
                   .num_sampled = 10,
                   .num_checked = 9,
                   .num_dropped = 1,
                   .rows = {{setting, 4096, true, 8, 0.2, 0.16, 0.24, engine::Level::kFast},
                            {setting, 4096, false, 1, 0.5, 0, 1, engine::Level::kFast}}};
  start();
  EXPECT_EQ(get(port(), "/health").body,
            R"({"status":"ok","shadow":{"share":0.1,"sampled":10,"checked":9,"dropped":1,)"
            R"("off":[{"mode":"selective:0.15:both","min_tokens":4096,"quality":"fast"}]}})");
  const std::string page = get(port(), "/metrics").body;
  const std::string row = R"(mode="selective:0.15:both",tokens="4096")";
  for (const std::string& line : {cat("redknot_shadow_off{card=\"1\",", row, "} 1"),
                                  cat("redknot_shadow_off{card=\"0\",", row, "} 0"),
                                  cat("redknot_shadow_checks{card=\"1\",", row, "} 8"),
                                  cat("redknot_shadow_kl{card=\"1\",", row, ",what=\"mean\"} 0.2"),
                                  std::string("redknot_shadow_answers{what=\"dropped\"} 1")}) {
    EXPECT_NE(page.find(line), std::string::npos) << line << "\n" << page;
  }
}

}  // namespace
}  // namespace rk::serve
