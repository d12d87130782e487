#include "serve/origin.h"

#include <gtest/gtest.h>

namespace rk::serve {
namespace {

HttpRequest request(const std::string& host, const std::string& origin = "",
                    const std::string& method = "POST") {
  HttpRequest out;
  out.method = method;
  if (!host.empty()) out.headers.emplace_back("host", host);
  if (!origin.empty()) out.headers.emplace_back("origin", origin);
  return out;
}

OriginPolicy policy(const OriginPolicy::Options& options, const std::string& bound = "127.0.0.1",
                    bool keyless = true) {
  auto made = OriginPolicy::create(options, bound, keyless);
  EXPECT_TRUE(made.ok()) << made.status().message();
  return std::move(made).value();
}

TEST(OriginPolicy, LoopbackAnswersToItsOwnNames) {
  const OriginPolicy p = policy({});
  for (const char* good : {"localhost", "localhost:8080", "LocalHost", "localhost.", "127.0.0.1",
                           "127.0.0.1:80", "127.1.2.3", "[::1]", "[::1]:8080"}) {
    EXPECT_TRUE(p.check(request(good)).ok()) << good;
  }
  for (const char* bad :
       {"evil.example", "evil.example:8080", "localhost.evil.example", "127.0.0.1.evil.example",
        "127.evil.example", "localhost:80:80", "localhost:x", "localhost:", "[::1", "[::1]x",
        "[::2]", "10.0.0.1", "0.0.0.0", "localhost@evil.example", " ", "*"}) {
    EXPECT_FALSE(p.check(request(bad)).ok()) << bad;
  }
  EXPECT_NE(p.check(request("evil.example")).message().find("evil.example"), std::string::npos);
  EXPECT_TRUE(p.check(request("")).ok());  // HTTP/1.0
}

TEST(OriginPolicy, FurtherHostsAreNamed) {
  const OriginPolicy p = policy({{"Box.Example", "fd00::1", "10.0.0.5"}, {}});
  for (const char* good : {"box.example:80", "[FD00::1]:80", "10.0.0.5", "localhost"}) {
    EXPECT_TRUE(p.check(request(good)).ok()) << good;
  }
  EXPECT_FALSE(p.check(request("a.box.example")).ok());
  EXPECT_TRUE(policy({{"*"}, {}}).check(request("evil.example")).ok());
  // Beyond loopback any name may be the server's, until they are listed.
  EXPECT_TRUE(policy({}, "0.0.0.0").check(request("evil.example")).ok());
  EXPECT_FALSE(policy({{"box.example"}, {}}, "0.0.0.0").check(request("evil.example")).ok());
  for (const char* bad : {"", "http://box", "box:80", "[::1]:80", "box/x", "a b", "a,b", "x@y"}) {
    EXPECT_FALSE(OriginPolicy::create({{bad}, {}}, "127.0.0.1", true).ok()) << bad;
  }
}

TEST(OriginPolicy, UnknownPagesDoNotUseAServerWithoutKeys) {
  const OriginPolicy p = policy({{}, {"https://app.example"}});
  EXPECT_TRUE(p.check(request("localhost:8080")).ok());  // no browser
  EXPECT_TRUE(p.check(request("localhost:8080", "http://localhost:8080")).ok());
  EXPECT_TRUE(p.check(request("localhost:8080", "https://app.example")).ok());
  for (const char* bad : {"http://evil.example", "null", "http://localhost:9999", "http://",
                          "https://app.example.evil", "http://app.example"}) {
    EXPECT_FALSE(p.check(request("localhost:8080", bad)).ok()) << bad;
    EXPECT_TRUE(p.check(request("localhost:8080", bad, "GET")).ok()) << bad;  // it reads nothing
  }
  EXPECT_TRUE(policy({}, "0.0.0.0", false).check(request("x", "http://evil.example")).ok());
}

TEST(OriginPolicy, CorsHeadersForAllowedPagesOnly) {
  EXPECT_TRUE(policy({}).headers(request("localhost", "http://a.example")).empty());
  const OriginPolicy p = policy({{}, {"http://a.example"}});
  EXPECT_EQ(p.headers(request("localhost", "http://b.example")), (Headers{{"Vary", "Origin"}}));
  const Headers given = p.headers(request("localhost", "http://a.example"));
  ASSERT_EQ(given.size(), 3U);
  EXPECT_EQ(given[1].second, "http://a.example");
  EXPECT_EQ(policy({{}, {"*"}}).headers(request("localhost", "http://b.example"))[1].second, "*");
  for (const char* bad : {"", "a.example", "http://", "http://a/x", "http://a b", "://a"}) {
    EXPECT_FALSE(OriginPolicy::create({{}, {bad}}, "127.0.0.1", true).ok()) << bad;
  }
}

TEST(OriginPolicy, PreflightEchoesSaneHeaderNames) {
  const OriginPolicy p = policy({{}, {"http://a.example"}});
  HttpRequest ask = request("localhost", "http://a.example", "OPTIONS");
  EXPECT_FALSE(p.is_preflight(ask));
  ask.headers.emplace_back("access-control-request-method", "POST");
  EXPECT_TRUE(p.is_preflight(ask));
  const auto allowed = [&] {
    for (const auto& [name, value] : p.headers(ask)) {
      if (name == "Access-Control-Allow-Headers") return value;
    }
    return std::string();
  };
  EXPECT_EQ(allowed(), "Authorization, Content-Type");
  ask.headers.emplace_back("access-control-request-headers", "content-type, x-stainless-os");
  EXPECT_EQ(allowed(), "content-type, x-stainless-os");
  ask.headers.back().second = "a\r\nevil: 1";
  EXPECT_EQ(allowed(), "Authorization, Content-Type");
  ask.headers[1].second = "http://b.example";
  EXPECT_FALSE(p.is_preflight(ask));
}

}  // namespace
}  // namespace rk::serve
