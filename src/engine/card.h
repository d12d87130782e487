// A card: how faithful each lossy mode was measured to be on one model under one head plan (spec
// A8). A card states figures; what level they reach is decided here and nowhere else; the gate
// (engine/gate.h) chooses by them. Immutable values; pure functions but for load().
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/status.h"
#include "engine/request.h"

namespace rk::engine {

Result<Fit> parse_fit(std::string_view name);

/// What a card may say something of: not what chooses (kAuto), nor what no request should get
/// unasked however it measures (kRandom, kNone).
constexpr bool fits_on_card(Mode mode) {
  return mode != Mode::kAuto && mode != Mode::kRandom && mode != Mode::kNone;
}

/// One measured setting.
struct CardEntry {
  Mode mode = Mode::kReuse;
  double ratio = 0;                           ///< mode_share()
  int boundary_rows = 0;                      ///< kBoundary
  SelectUnits select = SelectUnits::kBlocks;  ///< takes_ratio()
  Fit fit = Fit::kLead;
  int64_t min_tokens = 0, max_tokens = 0;  ///< prompt lengths it was measured at, inclusive
  int min_documents = 0, max_documents = 0;
  bool low_precision = false;  ///< stored rows in fewer bits than computed: never strict
  std::string data;            ///< what it was measured on, for people
  int64_t n = 0;
  double dense_score = 0, mode_score = 0;
  double retained_low = 0, retained_high = 0;   ///< 95 % interval of mode_score / dense_score
  double mean_kl = 0, kl_high = 0, p95_kl = 0;  ///< kl_high: upper 95 % bound of the mean
  double top1 = 0, agreement = 0;               ///< shares: same token, same whole answer
  int64_t needle_n = 0, needle_lost = 0;
  double needle_loss_high = 1;  ///< exact one-sided 95 % bound of lost / n; 1 where n is 0
  double length_ratio = 1;      ///< generated tokens, mode over dense
  double ttft_ratio = 0;        ///< time to first token, mode over dense
};

/// What an entry's figures reach: KL at its upper bound, needle loss at its bound, and the score
/// retained not refuted by its interval.
Level level_of(const CardEntry& entry);

struct Card {
  std::string model;       ///< name, for people
  std::string weights;     ///< identity of the weights, hex
  std::string plan;        ///< digest of the head plan, hex
  std::string kv_dtype;    ///< of rows as computed; with "+int8" etc. documents at rest are kept so
  std::string provenance;  ///< commit, command, date
  std::vector<CardEntry> entries;

  /// Errors: kNotFound; kInvalidArgument or kDataLoss naming file, field and the bad value.
  static Result<Card> load(const std::string& path);
  static Result<Card> parse(std::string_view json, const std::string& name);
  std::string to_json() const;  ///< ends with a newline
};

/// What this engine is, to compare a card with.
struct CardIdentity {
  std::string weights, plan, kv_dtype;
  bool low_precision = false;  ///< documents at rest have fewer bits than they were computed in
};
/// Rows of finer precision may be served by what was measured with coarser ones (f32, f16, bf16).
/// Errors: kInvalidArgument naming the field and both values: the card is another model's.
Status check_card(const Card& card, const CardIdentity& identity, const std::string& name);

/// The entries of every card in these folders (*.json, by name) that is this engine's, as one card;
/// nothing where there is none. `identity` is asked only where a folder holds a card. A folder that
/// is missing counts as empty; a file that is no card is left out with a warning in the log.
/// Errors: those of `identity`.
Result<std::optional<Card>> find_cards(std::span<const std::string> folders,
                                       const std::function<Result<CardIdentity>()>& identity);

/// Upper bound of the mean KL that a level allows; infinite for kNone.
double kl_bound(Level level);

}  // namespace rk::engine
