// Cards: no crash, what is taken comes back the same, and the gate never lets through what does not
// reach the level.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/check.h"
#include "engine/card.h"

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
      RK_CHECK(choose_mode(&*card, {level, tokens, 4, Fit::kLead}).level >= level);
    }
  }
  return 0;
}
