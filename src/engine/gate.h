// The gate: which mode a prompt may be served in, by what cards say (spec A8). Pure functions.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/card.h"
#include "engine/request.h"

namespace rk::engine {

/// A lossy mode with its number and units; the numbers of other modes are 0, their units blocks.
struct Setting {
  Mode mode = Mode::kReuse;
  double ratio = 0;
  int boundary_rows = 0;
  SelectUnits select = SelectUnits::kBlocks;
  bool operator==(const Setting&) const = default;
};
Setting setting_of(Mode mode, double ratio, int boundary_rows,
                   SelectUnits select = SelectUnits::kBlocks);
Setting setting_of(const CardEntry& entry);
Setting setting_of(const Request& request);
/// As read_mode() takes it: "selective:0.15"; units that are not blocks behind:
/// "selective:0.15:both".
std::string setting_name(const Setting& setting);

/// A setting whose divergence left a level while it served (engine/shadow.h): what a card says of
/// it is not believed for that level and more faithful ones.
struct SwitchedOff {
  Setting setting;
  Level from = Level::kFast;
  double kl = 0;  ///< the bound of the mean that was seen
  int64_t n = 0;  ///< in so many checks
};

/// One line with both numbers.
std::string describe(const SwitchedOff& off);

/// What a prompt asks of the gate.
struct GateQuestion {
  Level level = Level::kStrict;
  int64_t prompt_tokens = 0;
  int num_documents = 0;
  Fit fit = Fit::kLead;
  std::vector<SwitchedOff> off = {};  ///< at this prompt's length
};
/// What the gate lets through.
struct GateAnswer {
  Mode mode = Mode::kPrefix;
  double ratio = 0;
  int boundary_rows = 0;
  SelectUnits select = SelectUnits::kBlocks;
  Level level = Level::kStrict;  ///< what the chosen setting reaches
  std::string reason;            ///< one line: which entry, or what none of them reached
};
/// Where several entries of one setting cover a prompt, measured on different data, the setting is
/// as faithful as the worst of each of their figures: a mode that finds planted numbers may fail on
/// prose. Of entries at several fits those nearest to the prompt's count; one measured at a worse
/// fit covers a better one. Data without planted facts says nothing of their loss: at least one
/// entry must.

/// The fastest setting (least ttft_ratio; ties: the more faithful, then the first on the card) that
/// reaches the level for this prompt; exact prefix reuse where there is none, and always for
/// kStrict without an entry.
GateAnswer choose_mode(const Card* card, const GateQuestion& question);

/// The level that exactly this setting reaches for this prompt; kNone where nothing covers it.
Level level_of_mode(const Card* card, const GateQuestion& question, const Setting& setting);

}  // namespace rk::engine
