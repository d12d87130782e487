#include "engine/card.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "engine/card_testing.h"

namespace rk::engine {
namespace {

using testing::HasSubstr;

// Spec A8, each bound at and just above its value.
TEST(Card, LevelsFollowTheBounds) {
  const auto level = [](double kl, double loss) {
    return level_of(entry(Mode::kReuse, kl, loss, 1));
  };
  EXPECT_EQ(level(0.01, 0.01), Level::kStrict);
  EXPECT_EQ(level(0.0101, 0.01), Level::kBalanced);
  EXPECT_EQ(level(0.01, 0.0101), Level::kBalanced);
  EXPECT_EQ(level(0.05, 0.05), Level::kBalanced);
  EXPECT_EQ(level(0.0501, 0), Level::kFast);
  EXPECT_EQ(level(0, 0.0501), Level::kFast);
  EXPECT_EQ(level(0.15, 0.15), Level::kFast);
  EXPECT_EQ(level(0.1501, 0), Level::kNone);
  EXPECT_EQ(level(0, 0.1501), Level::kNone);
}

TEST(Card, ARefutedScoreAndLowPrecisionLowerTheLevel) {
  CardEntry e = entry(Mode::kReuse, 0.001, 0.001, 1);
  EXPECT_EQ(level_of(e), Level::kStrict);
  e.retained_low = 0.8;  // a wide interval refutes nothing
  EXPECT_EQ(level_of(e), Level::kStrict);
  e.retained_high = 0.98;
  EXPECT_EQ(level_of(e), Level::kBalanced);
  e.retained_high = 0.94;
  EXPECT_EQ(level_of(e), Level::kFast);
  e.retained_high = 0.89;
  EXPECT_EQ(level_of(e), Level::kNone);
  e.dense_score = 0;  // dense itself scores nothing: the score decides nothing
  EXPECT_EQ(level_of(e), Level::kStrict);
  e.low_precision = true;
  EXPECT_EQ(level_of(e), Level::kBalanced);
}

TEST(Card, TextRoundTrips) {
  const std::string text = card().to_json();
  const auto read = Card::parse(text, "c");
  ASSERT_TRUE(read.ok()) << read.status().message();
  EXPECT_EQ(read->to_json(), text);
  EXPECT_EQ(read->entries.size(), 3U);
  EXPECT_EQ(read->entries[1].ratio, 0.3);
  EXPECT_THAT(text, HasSubstr("\"reaches\":\"balanced\""));
}

TEST(Card, BadCardsAreRefusedByFieldAndValue) {
  const std::string good = card().to_json();
  const auto swapped = [&](const std::string& from, const std::string& to) {
    std::string text = good;
    const size_t at = text.find(from);
    EXPECT_NE(at, std::string::npos) << from;
    return Card::parse(text.replace(at, from.size(), to), "c.json").status();
  };
  const std::tuple<const char*, const char*, const char*> cases[] = {
      {"redknot card", "other", "c.json.format"},
      {"\"version\":1", "\"version\":7", "this program reads version 1"},
      {"\"mode\":\"reuse\"", "\"mode\":\"magic\"", "entries[0].mode"},
      {"\"fit\":\"lead\"", "\"fit\":\"glove\"", "entries[0].fit"},
      {"\"min_tokens\":1000", "\"min_tokens\":-1", "entries[0].min_tokens"},
      {"\"max_tokens\":8000", "\"max_tokens\":10", "is no number from 1000"},
      {"\"n\":200", "\"n\":0", "entries[0].n"},
      {"\"n\":200", "\"n\":2.5", "no whole number"},
      {"\"kl_high\"", "\"kl_hi\"", "kl_high: is missing"},
      {"\"needle_lost\":0", "\"needle_lost\":201", "entries[0].needle_lost"},
      {"\"ratio\":3E-1", "\"ratio\":1.5", "entries[1].ratio"},
      {"\"entries\":[", "\"entries\":[7,", "entries[0]: no object"},
  };
  for (const auto& [from, to, message] : cases) {
    const Status status = swapped(from, to);
    EXPECT_EQ(status.code(), Code::kInvalidArgument) << to;
    EXPECT_THAT(status.message(), HasSubstr(message)) << to;
  }
  EXPECT_EQ(Card::parse(good.substr(0, good.size() / 2), "c").status().code(), Code::kDataLoss);
  EXPECT_EQ(Card::parse("", "c").status().code(), Code::kDataLoss);
  EXPECT_EQ(Card::load("/nowhere/card.json").status().code(), Code::kNotFound);
  const Status endless = Card::load("/dev/zero").status();  // read no further than a card may be
  EXPECT_EQ(endless.code(), Code::kInvalidArgument);
  EXPECT_THAT(endless.message(), HasSubstr("at most 16777216"));
}

TEST(Card, ModesThatNobodyShouldGetUnaskedAreRefused) {
  for (const Mode mode : {Mode::kAuto, Mode::kRandom, Mode::kNone}) {
    Card c = card();
    c.entries[1].mode = mode;
    const auto read = Card::parse(c.to_json(), "c.json");
    EXPECT_NE(read.status().message().find("entries[1].mode"), std::string::npos)
        << mode_name(mode);
  }
  Card c = card();
  c.entries[1].mode = Mode::kCacheblend;
  c.entries[1].ratio = 0.25;
  const auto read = Card::parse(c.to_json(), "c.json");
  ASSERT_TRUE(read.ok()) << read.status().message();
  EXPECT_EQ(read->entries[1].ratio, 0.25);
}

TEST(Card, HowRowsAreTakenIsNamedWhereItIsNotBlocks) {
  const std::string plain = card().to_json();
  EXPECT_EQ(plain.find("\"select\""), std::string::npos);
  const auto with = [&](const std::string& field) {
    std::string text = plain;
    return Card::parse(text.replace(text.find("\"ratio\""), 0, field), "c.json");
  };
  EXPECT_EQ(with("")->entries[1].select, SelectUnits::kBlocks);
  EXPECT_EQ(with("\"select\":\"blocks\",")->to_json(), plain);
  for (const SelectUnits units : {SelectUnits::kBoth, SelectUnits::kRows}) {
    const auto read = with(cat("\"select\":\"", select_name(units), "\","));
    ASSERT_TRUE(read.ok()) << read.status().message();
    EXPECT_EQ(read->entries[1].select, units);
    EXPECT_EQ(Card::parse(read->to_json(), "c")->entries[1].select, units);
  }
  for (const char* bad : {"\"halves\"", "1", "\"\"", "null"}) {
    const Status status = with(cat("\"select\":", bad, ",")).status();
    EXPECT_EQ(status.code(), Code::kInvalidArgument) << bad;
    EXPECT_THAT(status.message(), HasSubstr("c.json.entries[1].select")) << bad;
  }
  Card rival = card();
  rival.entries[1].mode = Mode::kCacheblend;
  rival.entries[1].select = SelectUnits::kBoth;
  EXPECT_THAT(Card::parse(rival.to_json(), "c.json").status().message(),
              HasSubstr("entries[1].select"));
}

TEST(Card, AnothersCardIsRefusedWithBothValues) {
  EXPECT_TRUE(check_card(card(), {"ab12", "cd34", "f16"}, "c").ok());
  for (const CardIdentity& other :
       {CardIdentity{"ffff", "cd34", "f16"}, {"ab12", "ffff", "f16"}, {"ab12", "cd34", "ffff"}}) {
    const Status status = check_card(card(), other, "c");
    EXPECT_EQ(status.code(), Code::kInvalidArgument);
    EXPECT_THAT(status.message(), HasSubstr("ffff"));
  }
}

TEST(Card, FinerRowsAreServedByWhatCoarserOnesMeasured) {
  Card coarse = card();
  coarse.kv_dtype = "bf16";
  EXPECT_TRUE(check_card(coarse, {"ab12", "cd34", "f16"}, "c").ok());
  EXPECT_TRUE(check_card(coarse, {"ab12", "cd34", "f32"}, "c").ok());
  EXPECT_FALSE(check_card(card(), {"ab12", "cd34", "bf16"}, "c").ok());
  coarse.kv_dtype = "f16+int8";
  EXPECT_FALSE(check_card(coarse, {"ab12", "cd34", "f16+fp8"}, "c").ok());
  EXPECT_FALSE(check_card(coarse, {"ab12", "cd34", "f16"}, "c").ok());
  EXPECT_FALSE(check_card(card(), {"ab12", "cd34", "f16+int8"}, "c").ok());
}

class CardFolder : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = std::filesystem::temp_directory_path() / cat("rk_cards_", getpid());
    std::filesystem::create_directories(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  void write(const char* name, const std::string& text) const {
    std::ofstream(folder_ / name) << text;
  }
  Result<std::optional<Card>> find() {
    const std::string folders[] = {"/nowhere/cards", folder_.string()};
    return find_cards(folders, [this]() -> Result<CardIdentity> {
      ++asked_;
      return CardIdentity{"ab12", "cd34", "f16"};
    });
  }
  std::filesystem::path folder_;
  int asked_ = 0;
};

TEST_F(CardFolder, EveryCardOfThisEngineCounts) {
  EXPECT_FALSE(find()->has_value());
  EXPECT_EQ(asked_, 0);  // the weights need not be read
  Card other = card();
  other.weights = "ffff";
  write("b.json", card().to_json());
  write("a.json", card().to_json());
  write("other.json", other.to_json());
  write("broken.json", "{");
  write("notes.txt", "no card");
  std::filesystem::create_directory(folder_ / "folder.json");
  ASSERT_EQ(mkfifo((folder_ / "pipe.json").c_str(), 0600), 0);
  std::filesystem::create_symlink("nowhere", folder_ / "link.json");
  const auto found = find();
  ASSERT_TRUE(found.ok() && found->has_value());
  EXPECT_EQ((*found)->entries.size(), 6U);
  EXPECT_EQ(asked_, 1);
}

}  // namespace
}  // namespace rk::engine
