// Cards: no crash, what is taken comes back the same, and the gate never lets through what does not
// reach the level.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/check.h"
#include "engine/card.h"
#include "engine/gate.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace rk::engine;
  const auto card = Card::parse({reinterpret_cast<const char*>(data), size}, "fuzz");
  if (!card.ok()) {
    RK_CHECK(!card.status().message().empty());
    return 0;
  }
  const auto again = Card::parse(card->to_json(), "again");
  RK_CHECK_OK(again.status());
  RK_CHECK(again->to_json() == card->to_json());
  for (const Level level : {Level::kFast, Level::kBalanced, Level::kStrict}) {
    for (const int64_t tokens : {0, 1000, 1 << 20}) {
      GateQuestion question{level, tokens, 4, Fit::kLead};
      const GateAnswer answer = choose_mode(&*card, question);
      RK_CHECK(answer.level >= level && !answer.reason.empty());
      RK_CHECK(answer.mode == Mode::kPrefix || fits_on_card(answer.mode));
      // What is switched off is not chosen again.
      const Setting off =
          setting_of(answer.mode, answer.ratio, answer.boundary_rows, answer.select);
      question.off = {{off, Level::kFast, 1, 8}};
      const GateAnswer other = choose_mode(&*card, question);
      RK_CHECK(other.level >= level);
      RK_CHECK(other.mode == Mode::kPrefix ||
               !(setting_of(other.mode, other.ratio, other.boundary_rows, other.select) == off));
    }
  }
  return 0;
}
