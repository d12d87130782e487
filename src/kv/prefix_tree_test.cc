#include "kv/prefix_tree.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <numeric>
#include <random>

namespace rk::kv {
namespace {

using Ids = std::vector<int32_t>;
using testing::ElementsAre;

/// Rows that remember which tokens they were computed for, and tell when they go.
struct TestRows : PrefixRows {
  TestRows(Ids all, int* alive) : tokens(std::move(all)), alive(alive) { ++*alive; }
  ~TestRows() override { --*alive; }
  Ids tokens;  ///< tokens of rows 0..n-1, the whole prompt up to there
  int* alive;
};

class PrefixTreeTest : public testing::Test {
 protected:
  std::shared_ptr<TestRows> rows(const Ids& tokens) {
    return std::make_shared<TestRows>(tokens, &alive_);
  }
  /// All rows of `tokens` in one object, as a first request leaves them.
  int64_t insert(const Ids& tokens, const std::string& root = "m") {
    const std::vector<PrefixTree::Piece> pieces = {
        {rows(tokens), 0, static_cast<int32_t>(tokens.size())}};
    return tree_.insert(root, tokens, pieces).value();
  }
  int64_t matched(const Ids& tokens, const std::string& root = "m") {
    const PrefixTree::Match m = tree_.match(root, tokens);
    check(m, tokens);
    return m.num_tokens;
  }
  /// A match's pieces cover its tokens in order, each with rows of exactly this prompt's prefix.
  static void check(const PrefixTree::Match& m, const Ids& tokens) {
    int32_t at = 0;
    for (const PrefixTree::Piece& p : m.pieces) {
      ASSERT_LT(p.begin, p.end);
      const auto& stored = dynamic_cast<const TestRows&>(*p.rows);
      ASSERT_EQ(p.begin, at);
      ASSERT_LE(static_cast<size_t>(p.end), stored.tokens.size());
      for (int32_t i = 0; i < p.end; ++i) {
        ASSERT_EQ(stored.tokens[static_cast<size_t>(i)], tokens[static_cast<size_t>(i)]);
      }
      at = p.end;
    }
    ASSERT_EQ(at, m.num_tokens);
  }

  int alive_ = 0;
  PrefixTree tree_;
};

TEST_F(PrefixTreeTest, FindsTheLongestStoredPrefix) {
  EXPECT_EQ(matched({1, 2}), 0);
  EXPECT_EQ(insert({1, 2, 3, 4}), 4);
  EXPECT_EQ(insert({1, 2, 7}), 1);
  EXPECT_EQ(tree_.num_tokens(), 5);
  EXPECT_EQ(tree_.num_nodes(), 3);
  EXPECT_EQ(matched({1, 2, 3, 4, 5}), 4);
  EXPECT_EQ(matched({1, 2, 3}), 3);
  EXPECT_EQ(matched({1, 2, 7, 7}), 3);
  EXPECT_EQ(matched({1, 9}), 1);
  EXPECT_EQ(matched({2}), 0);
  EXPECT_EQ(matched({}), 0);
  EXPECT_EQ(matched({1, 2}, "other"), 0);
  const auto m = tree_.peek("m", Ids{1, 2, 3, 4});
  EXPECT_EQ(m.pieces.size(), 1U);  // one object's stretches are joined again after the split
}

TEST_F(PrefixTreeTest, OlderRowsStayWhereTokensAreEqual) {
  insert({1, 2, 3});
  EXPECT_EQ(insert({1, 2, 3}), 0);
  EXPECT_EQ(alive_, 1);
  EXPECT_EQ(insert({1, 2}), 0);
  EXPECT_EQ(alive_, 1);
  EXPECT_EQ(insert({1, 2, 3, 4}), 1);
  const auto m = tree_.peek("m", Ids{1, 2, 3, 4});
  ASSERT_EQ(m.pieces.size(), 2U);
  EXPECT_EQ(m.pieces[0].end, 3);
  EXPECT_EQ(m.pieces[1].begin, 3);
}

TEST_F(PrefixTreeTest, PiecesMustCoverTheTokens) {
  const Ids ids = {1, 2, 3};
  const auto r = rows(ids);
  const auto bad = [&](std::vector<PrefixTree::Piece> pieces) {
    return tree_.insert("m", ids, pieces).code();
  };
  EXPECT_EQ(bad({{r, 0, 2}}), Code::kInvalidArgument);
  EXPECT_EQ(bad({{r, 0, 4}}), Code::kInvalidArgument);
  EXPECT_EQ(bad({{nullptr, 0, 3}}), Code::kInvalidArgument);
  EXPECT_EQ(bad({{r, 0, 3}, {r, 3, 3}}), Code::kInvalidArgument);
  EXPECT_EQ(bad({{r, -1, 2}}), Code::kInvalidArgument);
  EXPECT_EQ(bad({}), Code::kInvalidArgument);
  EXPECT_EQ(tree_.num_tokens(), 0);
  EXPECT_EQ(bad({{r, 0, 1}, {r, 1, 3}}), Code::kOk);
}

TEST_F(PrefixTreeTest, EvictsLeavesLeastRecentlyUsedFirst) {
  insert({1, 2, 3});
  insert({1, 2, 4, 5});
  insert({9, 9});
  matched({1, 2, 3});
  EXPECT_EQ(tree_.evict(1), 2);  // {4, 5}
  EXPECT_EQ(matched({1, 2, 4, 5}), 2);
  EXPECT_EQ(tree_.evict(1), 2);  // {9, 9}: older than the lookups of {1, 2, ...}
  EXPECT_EQ(matched({9}), 0);
  EXPECT_EQ(tree_.evict(2), 3);  // the leaf {3}, then its parent
  EXPECT_EQ(tree_.num_tokens(), 0);
  EXPECT_EQ(tree_.num_nodes(), 0);
  EXPECT_EQ(alive_, 0);
  EXPECT_EQ(tree_.evict(1), 0);
}

TEST_F(PrefixTreeTest, KeepsWhatMayNotGoAndEvictsAroundIt) {
  insert({1, 2, 3});
  insert({1, 2, 4});
  const PrefixTree::Match held = tree_.match("m", Ids{1, 2, 3});
  const auto unshared = [&](std::span<const PrefixTree::Piece> pieces) {
    return pieces.front().rows != held.pieces.front().rows;
  };
  EXPECT_EQ(tree_.evict(100, unshared), 1);
  EXPECT_EQ(matched({1, 2, 3}), 3);
  EXPECT_EQ(tree_.evict(100), 3);
  EXPECT_EQ(alive_, 1);  // the match still holds the rows
}

TEST_F(PrefixTreeTest, EraseDropsOneRoot) {
  insert({1, 2}, "a");
  insert({1, 3}, "a");
  insert({1, 2}, "b");
  tree_.erase("a");
  tree_.erase("none");
  EXPECT_EQ(matched({1, 2}, "a"), 0);
  EXPECT_EQ(matched({1, 2}, "b"), 2);
  EXPECT_EQ(tree_.num_tokens(), 2);
  EXPECT_EQ(tree_.num_nodes(), 1);
  tree_.clear();
  EXPECT_EQ(tree_.num_nodes(), 0);
  EXPECT_EQ(alive_, 0);
}

TEST_F(PrefixTreeTest, ALongChainOfNodesIsReleasedWithoutRecursion) {
  Ids ids(3000);
  std::iota(ids.begin(), ids.end(), 0);
  const auto all = rows(ids);
  for (int32_t n = 1; n <= 3000; ++n) {
    const std::vector<PrefixTree::Piece> pieces = {{all, 0, n}};
    ASSERT_EQ(tree_.insert("m", std::span(ids).first(static_cast<size_t>(n)), pieces).value(), 1);
  }
  EXPECT_EQ(tree_.num_nodes(), 3000);
  EXPECT_EQ(matched(ids), 3000);
}

// Against a plain set of all stored prefixes. Insertions go as an engine's: matched rows first, new
// rows behind them in an object of their own.
TEST_F(PrefixTreeTest, AgreesWithASetOfPrefixes) {
  for (const uint32_t seed : {1U, 2U, 3U}) {
    SCOPED_TRACE(cat("seed ", seed));
    std::mt19937 rng(seed);
    tree_.clear();
    std::map<std::string, std::map<Ids, bool>> stored;  // root -> every non-empty stored prefix
    const auto random_ids = [&] {
      Ids ids(rng() % 12);
      for (int32_t& id : ids) id = static_cast<int32_t>(rng() % 3);
      return ids;
    };
    const auto longest = [&](const std::string& root, const Ids& ids) {
      size_t n = 0;
      while (n < ids.size() && stored[root].contains(Ids(ids.begin(), ids.begin() + n + 1))) ++n;
      return static_cast<int64_t>(n);
    };
    for (int step = 0; step < 4000; ++step) {
      const std::string root = rng() % 2 ? "a" : "b";
      const Ids ids = random_ids();
      const int64_t want = longest(root, ids);
      ASSERT_EQ(matched(ids, root), want);
      if (rng() % 3 == 0) {
        PrefixTree::Match m = tree_.match(root, ids);
        if (static_cast<size_t>(m.num_tokens) < ids.size()) {
          m.pieces.push_back(
              {rows(ids), static_cast<int32_t>(m.num_tokens), static_cast<int32_t>(ids.size())});
        }
        ASSERT_EQ(tree_.insert(root, ids, m.pieces).value(),
                  static_cast<int64_t>(ids.size()) - want);
        for (size_t n = 1; n <= ids.size(); ++n) {
          stored[root][Ids(ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(n))] = true;
        }
      } else if (rng() % 40 == 0) {
        const int64_t before = tree_.num_tokens();
        const int64_t asked = static_cast<int64_t>(rng() % 20);
        const int64_t gone = tree_.evict(asked);
        ASSERT_EQ(tree_.num_tokens(), before - gone);
        ASSERT_GE(gone, std::min(asked, before));
        int64_t left = 0;  // what is left is what the tree says, and closed under prefixes
        for (auto& [name, prefixes] : stored) {
          const auto& root = name;  // clang captures no structured binding
          std::erase_if(prefixes, [&](const auto& p) {
            return tree_.peek(root, p.first).num_tokens < static_cast<int64_t>(p.first.size());
          });
          left += static_cast<int64_t>(prefixes.size());
        }
        ASSERT_EQ(left, tree_.num_tokens());
      }
    }
    int64_t total = 0;
    for (const auto& [name, prefixes] : stored) total += static_cast<int64_t>(prefixes.size());
    ASSERT_EQ(tree_.num_tokens(), total);
    tree_.evict(total);
    ASSERT_EQ(alive_, 0);
  }
}

}  // namespace
}  // namespace rk::kv
