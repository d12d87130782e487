#include "engine/shadow.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "base/divergence.h"
#include "base/log.h"
#include "base/split_mix.h"

namespace rk::engine {
namespace {

int64_t bucket_of(int64_t prompt_tokens) {
  return static_cast<int64_t>(
      std::bit_floor(static_cast<uint64_t>(std::max<int64_t>(1, prompt_tokens))));
}

}  // namespace

double logits_divergence(std::span<const float> p, std::span<const float> q) {
  std::vector<float> log_p(p.begin(), p.end()), log_q(q.begin(), q.end());
  to_log_probabilities(log_p, p.size());
  to_log_probabilities(log_q, q.size());
  return kl_divergence(log_p, log_q);
}

Status check_shadow_share(double share) {
  if (share >= 0 && share <= 1) return {};
  return invalid_argument("shadow share: ", share, ", 0 to 1 wanted");
}

double ShadowTracker::Track::margin() const {
  if (n < 2) return INFINITY;
  const auto df = static_cast<double>(n - 1);
  const double t = 1.645 + 1.75 / df;  // Student's, one side of 95 %, from df 7 on
  return t * std::sqrt(squares / df / static_cast<double>(n));
}

bool ShadowTracker::sample() {
  const std::lock_guard lock(mutex_);
  const auto turn = static_cast<uint64_t>(num_answers_++);
  const uint64_t bits = split_mix(options_.seed * kSplitMixStep + turn);
  const bool chosen = unit_interval(bits) < options_.share;
  num_sampled_ += chosen;
  return chosen;
}

void ShadowTracker::drop() {
  const std::lock_guard lock(mutex_);
  ++num_dropped_;
}

void ShadowTracker::add(const Setting& setting, int64_t prompt_tokens, Level claimed, double kl) {
  const std::lock_guard lock(mutex_);
  const Key key{setting_name(setting), bucket_of(prompt_tokens), claimed != Level::kNone};
  Track& track = tracks_[key];
  track.setting = setting;
  track.strictest = std::max(track.strictest, claimed);
  ++num_checked_;
  ++track.n;
  const double from_mean = kl - track.mean;
  track.mean += from_mean / static_cast<double>(track.n);
  track.squares += from_mean * (kl - track.mean);
  judge(track, key);
}

void ShadowTracker::judge(Track& track, const Key& key) {
  if (track.n < kLeastChecks) return;
  const double low = track.mean - track.margin(), high = track.mean + track.margin();
  const double kl = track.n >= kEnoughChecks ? high : low;
  for (const Level level : {Level::kFast, Level::kBalanced, Level::kStrict}) {  // the widest first
    if (level > track.strictest || kl <= kl_bound(level)) continue;
    if (track.off_from != Level::kNone && track.off_from <= level) return;  // known
    track.off_from = level;
    track.off_kl = kl;
    track.off_n = track.n;
    const auto& [name, bucket, claimed] = key;
    log::warn(
        "engine: shadow checks of ", name, " at ", bucket, " tokens and more: mean KL ",
        track.n >= kEnoughChecks ? "up to " : "at least ", kl, " in ", track.n, " checks, ",
        level_name(level), " allows ", kl_bound(level),
        claimed ? "; no card's claim of it is believed any more" : "; named by hand, so served");
    return;
  }
}

std::vector<SwitchedOff> ShadowTracker::off_at(int64_t prompt_tokens) const {
  const std::lock_guard lock(mutex_);
  std::vector<SwitchedOff> out;
  for (const auto& [key, track] : tracks_) {
    const auto& [name, bucket, claimed] = key;
    if (!claimed || track.off_from == Level::kNone || bucket != bucket_of(prompt_tokens)) continue;
    out.push_back({track.setting, track.off_from, track.off_kl, track.off_n});
  }
  return out;
}

ShadowTracker::Stats ShadowTracker::stats() const {
  const std::lock_guard lock(mutex_);
  Stats out{options_.share, num_answers_, num_sampled_, num_checked_, num_dropped_, {}};
  for (const auto& [key, track] : tracks_) {
    const auto& [name, bucket, claimed] = key;
    const double margin = track.margin();
    out.rows.push_back({track.setting, bucket, claimed, track.n, track.mean,
                        std::max(0.0, track.mean - margin), track.mean + margin, track.off_from});
  }
  return out;
}

}  // namespace rk::engine
