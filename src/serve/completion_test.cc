#include "serve/completion.h"

#include <gtest/gtest.h>

#include "serve/fake_engine.h"

namespace rk::serve {
namespace {

struct Recorder : CompletionSink {
  std::vector<std::string> deltas;
  std::vector<std::string> tokens;
  CompletionEnd end;
  int ends = 0;
  bool on_delta(const CompletionDelta& delta) override {
    deltas.push_back(delta.text);
    for (const TokenDetail& detail : delta.details) tokens.push_back(detail.token.bytes);
    return true;
  }
  void on_end(const CompletionEnd& e) override {
    end = e;
    ++ends;
  }
};

struct Fed {
  std::shared_ptr<Recorder> sink = std::make_shared<Recorder>();
  std::string text;
  size_t fed = 0;  // bytes taken before the answer ended
};

// Feeds the bytes of `answer` as tokens.
Fed feed(const std::string& answer, CompletionOptions options, bool logprobs = false) {
  const FakeTokenizer tokenizer;
  Fed run;
  Completion completion(tokenizer, std::move(options), run.sink);
  engine::Outcome outcome;
  for (const char c : answer) {
    const int32_t id = static_cast<unsigned char>(c);
    engine::TokenEvent event{id, {}};
    if (logprobs) event.logprobs = kernels::Logprobs{{id, -1.0F}, {}};
    ++run.fed;
    if (!completion.on_token(event)) {
      outcome.finish = engine::FinishReason::kCancelled;
      break;
    }
  }
  completion.on_done(outcome);
  EXPECT_EQ(run.sink->ends, 1);
  for (const std::string& delta : run.sink->deltas) run.text += delta;
  return run;
}

TEST(Completion, StopStringsEndTheAnswerAtTheEarliest) {
  const Fed run = feed("abcabdabe", {.stop = {"abe", "abd"}});
  EXPECT_EQ(run.text, "abc");
  EXPECT_EQ(run.fed, 6U);
  EXPECT_EQ(run.sink->end.reason, "stop");
  EXPECT_EQ(run.sink->end.stop, "abd");
  EXPECT_EQ(feed("abcabdabe", {.stop = {"abd"}, .include_stop = true}).text, "abcabd");
}

TEST(Completion, HeldTextComesOutWhenItIsNoStop) {
  const Fed run = feed("aabaab", {.stop = {"aabaac"}});
  EXPECT_EQ(run.text, "aabaab");  // held to the end, then let go
  EXPECT_EQ(run.sink->end.reason, "stop");
  EXPECT_EQ(run.sink->end.stop, "");
  EXPECT_EQ(feed("aaab", {.stop = {"aab"}}).text, "a");  // overlapping starts
  EXPECT_EQ(feed("xyz", {.stop = {"z"}}).sink->deltas, (std::vector<std::string>{"x", "y"}));
}

TEST(Completion, CharactersStayWholeAndStopsMayBeMultibyte) {
  const Fed run = feed("a\xC3\xA9\xF0\x9F\x98\x80z", {});
  EXPECT_EQ(run.sink->deltas, (std::vector<std::string>{"a", "\xC3\xA9", "\xF0\x9F\x98\x80", "z"}));
  EXPECT_EQ(feed("a\xC3\xA8\xC3\xA9z", {.stop = {"\xC3\xA9"}}).text, "a\xC3\xA8");
  EXPECT_EQ(feed("a\xC3", {}).text, "a\xEF\xBF\xBD");
}

TEST(Completion, LogprobsAreThoseOfTheTextThatIsShown) {
  EXPECT_EQ(feed("abcd", {.stop = {"cd"}}, true).sink->tokens,
            (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(feed("ab", {}, true).sink->tokens.size(), 2U);
  EXPECT_EQ(feed("a\xC3\xA9", {}, true).sink->tokens.size(), 3U);  // one for each byte token
}

TEST(Completion, ErrorsAndCancellation) {
  const FakeTokenizer tokenizer;
  auto sink = std::make_shared<Recorder>();
  Completion failed(tokenizer, {}, sink);
  engine::Outcome outcome;
  outcome.finish = engine::FinishReason::kError;
  outcome.status = internal("broken");
  failed.on_done(outcome);
  EXPECT_EQ(sink->end.reason, "error");
  EXPECT_EQ(sink->end.status.message(), "broken");
  Completion left(tokenizer, {}, sink);
  left.cancel();
  EXPECT_TRUE(left.cancelled());
  EXPECT_FALSE(left.on_token({97, {}}));
  outcome.finish = engine::FinishReason::kCancelled;
  left.on_done(outcome);
  EXPECT_EQ(sink->end.reason, "cancelled");
}

}  // namespace
}  // namespace rk::serve
