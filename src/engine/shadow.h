// Shadow checks (spec A8): some approximate answers are computed again, densely, when nobody waits,
// and the divergence of each mode is followed. A mode that leaves what a card claims of it is
// switched off until the program ends. Bookkeeping only: runs no model. Thread-safe.
#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <span>
#include <string>
#include <tuple>
#include <vector>

#include "engine/gate.h"

namespace rk::engine {

/// KL(p || q) in nats of two rows of logits. Requires: equal sizes.
double logits_divergence(std::span<const float> p, std::span<const float> q);

struct ShadowOptions {
  double share = 0;   ///< of approximate answers, 0 to 1
  uint64_t seed = 0;  ///< of the choice
};
Status check_shadow_share(double share);

class ShadowTracker {
 public:
  /// From so many checks on a mean whose lower bound is beyond a level's switches the mode off for
  /// that level; from so many on, one whose upper bound is.
  static constexpr int64_t kLeastChecks = 8, kEnoughChecks = 64;

  explicit ShadowTracker(const ShadowOptions& options = {}) : options_(options) {}

  /// Whether the next approximate answer is to be checked; the same for the same seed and turn.
  bool sample();
  /// A sampled answer that could not be checked: its documents are gone, or there was no room.
  void drop();
  /// Mean KL(dense || mode) of an answer behind a prompt of so many tokens. `claimed`: what a card
  /// says of the mode there. kNone: named by hand; such answers are followed apart, beside what
  /// kFast allows, and only warned about.
  void add(const Setting& setting, int64_t prompt_tokens, Level claimed, double kl);

  /// What is off at this prompt length.
  std::vector<SwitchedOff> off_at(int64_t prompt_tokens) const;

  struct Row {
    Setting setting;
    int64_t min_tokens = 0;  ///< prompts of [min_tokens, 2 * min_tokens)
    bool claimed = false;
    int64_t num_checks = 0;
    double mean_kl = 0, kl_low = 0, kl_high = 0;  ///< 95 % one-sided bounds of the mean
    Level off_from = Level::kNone;  ///< of the levels at and above it; kNone: not switched off
  };
  struct Stats {
    double share = 0;
    int64_t num_answers = 0, num_sampled = 0, num_checked = 0, num_dropped = 0;
    std::vector<Row> rows;
  };
  Stats stats() const;

 private:
  using Key = std::tuple<std::string, int64_t, bool>;  // setting, bucket, claimed
  struct Track {
    Setting setting;
    int64_t n = 0;
    double mean = 0, squares = 0;    // Welford
    Level strictest = Level::kFast;  // that was claimed
    Level off_from = Level::kNone;
    double off_kl = 0;  // the bound that left the level
    int64_t off_n = 0;
    double margin() const;
  };
  static void judge(Track& track, const Key& key);

  const ShadowOptions options_;
  mutable std::mutex mutex_;  // of everything below
  std::map<Key, Track> tracks_;
  int64_t num_answers_ = 0, num_sampled_ = 0, num_checked_ = 0, num_dropped_ = 0;
};

}  // namespace rk::engine
