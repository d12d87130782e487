#include "engine/gate.h"

#include <algorithm>
#include <tuple>

namespace rk::engine {
namespace {

// What the entries that cover a prompt say of one setting together.
struct Judged {
  Setting setting;
  Fit fit = Fit::kOtherLead;
  Level level = Level::kStrict;
  bool facts = false;  // one of them says how many planted facts were lost
  double kl_high = 0, needle_loss_high = 0, ttft_ratio = 0;
  int64_t n = 0;
};

bool covers(const CardEntry& e, const GateQuestion& q) {
  return q.prompt_tokens >= e.min_tokens && q.prompt_tokens <= e.max_tokens &&
         q.num_documents >= e.min_documents && q.num_documents <= e.max_documents && q.fit <= e.fit;
}

bool speaks_of_facts(const CardEntry& e) { return e.needle_n > 0 || e.needle_loss_high < 1; }

// Every figure counts as the worst entry has it.
void add(CardEntry e, Judged& all) {
  if (speaks_of_facts(e)) {
    all.facts = true;
    all.needle_loss_high = std::max(all.needle_loss_high, e.needle_loss_high);
  } else {
    e.needle_loss_high = 0;
  }
  all.level = std::min(all.level, level_of(e));
  all.kl_high = std::max(all.kl_high, e.kl_high);
  all.ttft_ratio = std::max(all.ttft_ratio, e.ttft_ratio);
  all.n += e.n;
}

// The settings that the card's covering entries speak of, in its order.
std::vector<Judged> judge(const Card& card, const GateQuestion& q) {
  std::vector<Judged> out;
  for (const CardEntry& e : card.entries) {
    if (!covers(e, q)) continue;
    const Setting setting = setting_of(e);
    auto it = std::ranges::find(out, setting, &Judged::setting);
    if (it == out.end()) it = out.insert(it, {.setting = setting});
    if (e.fit < it->fit) *it = {.setting = setting, .fit = e.fit};
    if (e.fit == it->fit) add(e, *it);
  }
  for (Judged& one : out) {
    if (!one.facts) one.level = Level::kNone;
  }
  return out;
}

// Why what a card says of a setting is not believed; null where it is.
const SwitchedOff* off(const Judged& one, const GateQuestion& q) {
  for (const SwitchedOff& off : q.off) {
    if (off.setting == one.setting && one.level >= off.from) return &off;
  }
  return nullptr;
}

}  // namespace

Setting setting_of(Mode mode, double ratio, int boundary_rows, SelectUnits select) {
  return {mode, has_share(mode) ? ratio : 0, mode == Mode::kBoundary ? boundary_rows : 0,
          takes_ratio(mode) ? select : SelectUnits::kBlocks};
}

Setting setting_of(const CardEntry& e) {
  return setting_of(e.mode, e.ratio, e.boundary_rows, e.select);
}

Setting setting_of(const Request& r) {
  return setting_of(r.mode, mode_share(r), r.boundary_rows, r.select);
}

std::string setting_name(const Setting& s) {
  std::string out = mode_name(s.mode);
  if (has_share(s.mode)) out += cat(":", s.ratio);
  if (s.select != SelectUnits::kBlocks) out += cat(":", select_name(s.select));
  if (s.mode == Mode::kBoundary) out += cat(":", s.boundary_rows);
  return out;
}

std::string describe(const SwitchedOff& off) {
  return cat(setting_name(off.setting), " is switched off: shadow checks saw a mean KL of ", off.kl,
             " (bound, n ", off.n, "), ", level_name(off.from), " allows ", kl_bound(off.from));
}

Level level_of_mode(const Card* card, const GateQuestion& q, const Setting& setting) {
  if (card == nullptr) return Level::kNone;
  for (const Judged& one : judge(*card, q)) {
    if (one.setting == setting) {
      return off(one, q) == nullptr ? one.level : Level::kNone;
    }
  }
  return Level::kNone;
}

GateAnswer choose_mode(const Card* card, const GateQuestion& q) {
  GateAnswer out;
  if (card == nullptr) {
    out.reason = "no card: exact reuse only";
    return out;
  }
  const std::vector<Judged> settings = judge(*card, q);
  const Judged* best = nullptr;
  const Judged* passed_over = nullptr;
  const auto rank = [](const Judged& one) {
    return std::tuple(one.ttft_ratio, -static_cast<int>(one.level));
  };
  for (const Judged& one : settings) {
    if (one.level < q.level) continue;
    const Judged*& least = off(one, q) == nullptr ? best : passed_over;
    if (least == nullptr || rank(one) < rank(*least)) least = &one;
  }
  std::string why_not;
  if (passed_over != nullptr && (best == nullptr || rank(*passed_over) < rank(*best))) {
    why_not = cat("; ", describe(*off(*passed_over, q)));
  }
  if (best == nullptr) {
    out.reason = settings.empty()
                     ? cat("the card covers no prompt of ", q.prompt_tokens, " tokens and ",
                           q.num_documents, " documents at fit ", fit_name(q.fit))
                     : cat("no mode on the card reaches ", level_name(q.level), " at ",
                           q.prompt_tokens, " tokens and ", q.num_documents, " documents");
    out.reason += why_not;
    return out;
  }
  out.mode = best->setting.mode;
  out.ratio = best->setting.ratio;
  out.boundary_rows = best->setting.boundary_rows;
  out.select = best->setting.select;
  out.level = best->level;
  out.reason = cat(setting_name(best->setting), " reaches ", level_name(out.level), " (KL at most ",
                   best->kl_high, ", needle loss at most ", best->needle_loss_high, ", n ", best->n,
                   ")", why_not);
  return out;
}

}  // namespace rk::engine
