#include "engine/card.h"

#include <algorithm>
#include <array>
#include <boost/json.hpp>
#include <cmath>
#include <filesystem>
#include <tuple>

#include "base/log.h"
#include "base/read_file.h"

namespace rk::engine {
namespace {

namespace json = boost::json;

constexpr int kVersion = 1;
constexpr size_t kMaxBytes = 16 << 20, kMaxEntries = 100000;

constexpr std::array<const char*, 4> kLevels = {"none", "fast", "balanced", "strict"};
constexpr std::array<const char*, 5> kFits = {"predecessor", "mean", "company", "lead",
                                              "other_lead"};

template <class Enum, size_t N>
Result<Enum> parse_name(const std::array<const char*, N>& names, std::string_view name,
                        const char* what) {
  std::string known;
  for (size_t i = 0; i < N; ++i) {
    if (name == names[i]) return static_cast<Enum>(i);
    known += cat(known.empty() ? "" : ", ", names[i]);
  }
  return invalid_argument(what, ": \"", name, "\" is none of ", known);
}

// Bounds of the levels (spec A8): upper bound of the mean KL, of the share of needles lost, and the
// share of the score that must not be refuted.
struct Bound {
  Level level;
  double kl, needle_loss, retained;
};
constexpr Bound kBounds[] = {{Level::kStrict, 0.01, 0.01, 0.99},
                             {Level::kBalanced, 0.05, 0.05, 0.95},
                             {Level::kFast, 0.15, 0.15, 0.90}};

/// Reads an object's fields and remembers the first complaint.
class Fields {
 public:
  Fields(const json::object& object, std::string where)
      : object_(object), where_(std::move(where)) {}
  double number(const char* key, double low, double high) {
    const json::value* v = find(key);
    if (v == nullptr) return low;
    json::error_code error;
    const double value = v->is_number() ? v->to_number<double>(error) : NAN;
    if (!(value >= low && value <= high)) {
      complain(key, cat(json::serialize(*v), " is no number from ", low, " to ", high));
      return low;
    }
    return value;
  }
  int64_t count(const char* key, int64_t low = 0, int64_t high = int64_t{1} << 40) {
    const double value = number(key, static_cast<double>(low), static_cast<double>(high));
    if (value != std::floor(value)) complain(key, cat(value, " is no whole number"));
    return static_cast<int64_t>(value);
  }
  std::string text(const char* key) {
    const json::value* v = find(key);
    if (v == nullptr) return "";
    if (!v->is_string()) {
      complain(key, "no string");
      return "";
    }
    return std::string(v->get_string());
  }
  bool flag(const char* key) {
    const json::value* v = object_.if_contains(key);
    if (v == nullptr) return false;
    if (!v->is_bool()) complain(key, "neither true nor false");
    return v->is_bool() && v->get_bool();
  }
  void complain(const char* key, const std::string& what) {
    if (status_.ok()) status_ = invalid_argument(where_, ".", key, ": ", what);
  }
  void take(const char* key, const Status& status) {
    if (!status.ok()) complain(key, status.message());
  }
  const Status& status() const { return status_; }

 private:
  const json::value* find(const char* key) {
    const json::value* v = object_.if_contains(key);
    if (v == nullptr) complain(key, "is missing");
    return v;
  }
  const json::object& object_;
  std::string where_;
  Status status_;
};

Result<CardEntry> read_entry(const json::value& value, const std::string& where) {
  if (!value.is_object()) return invalid_argument(where, ": no object");
  Fields f(value.get_object(), where);
  CardEntry e;
  const auto mode = parse_mode(f.text("mode"));
  f.take("mode", mode.status());
  if (mode.ok()) e.mode = mode.value();
  if (!fits_on_card(e.mode)) {
    f.complain("mode", cat("\"", mode_name(e.mode), "\" is never chosen by a card"));
  }
  const auto fit = parse_fit(f.text("fit"));
  f.take("fit", fit.status());
  if (fit.ok()) e.fit = fit.value();
  if (has_share(e.mode)) e.ratio = f.number("ratio", 0, 1);
  if (e.mode == Mode::kRedknot) f.take("ratio", check_ffn_threshold(e.ratio));
  if (takes_ratio(e.mode) && value.get_object().contains("select")) {
    const auto select = parse_select(f.text("select"));
    f.take("select", select.status());
    if (select.ok()) e.select = select.value();
    f.take("select", check_select(e.mode, e.select));
  }
  if (e.mode == Mode::kBoundary) {
    e.boundary_rows = static_cast<int>(f.count("boundary_rows", 0, 1 << 20));
  }
  e.min_tokens = f.count("min_tokens");
  e.max_tokens = f.count("max_tokens", e.min_tokens);
  e.min_documents = static_cast<int>(f.count("min_documents", 0, 1 << 20));
  e.max_documents = static_cast<int>(f.count("max_documents", e.min_documents, 1 << 20));
  e.low_precision = f.flag("low_precision");
  e.data = f.text("data");
  e.n = f.count("n", 1);
  e.dense_score = f.number("dense_score", 0, 1);
  e.mode_score = f.number("mode_score", 0, 1);
  e.retained_low = f.number("retained_low", 0, 1e6);
  e.retained_high = f.number("retained_high", e.retained_low, 1e6);
  e.mean_kl = f.number("mean_kl", 0, 1e6);
  e.kl_high = f.number("kl_high", e.mean_kl, 1e6);
  e.p95_kl = f.number("p95_kl", 0, 1e6);
  e.top1 = f.number("top1", 0, 1);
  e.agreement = f.number("agreement", 0, 1);
  e.needle_n = f.count("needle_n");
  e.needle_lost = f.count("needle_lost", 0, e.needle_n);
  const double lost =
      e.needle_n == 0 ? 1 : static_cast<double>(e.needle_lost) / static_cast<double>(e.needle_n);
  e.needle_loss_high = f.number("needle_loss_high", lost, 1);
  e.length_ratio = f.number("length_ratio", 0, 1e6);
  e.ttft_ratio = f.number("ttft_ratio", 0, 1e6);
  RK_RETURN_IF_ERROR(f.status());
  return e;
}

json::object write_entry(const CardEntry& e) {
  json::object out{{"mode", mode_name(e.mode)}, {"fit", fit_name(e.fit)}};
  if (has_share(e.mode)) out["ratio"] = e.ratio;
  if (e.select != SelectUnits::kBlocks) out["select"] = select_name(e.select);
  if (e.mode == Mode::kBoundary) out["boundary_rows"] = e.boundary_rows;
  out["min_tokens"] = e.min_tokens;
  out["max_tokens"] = e.max_tokens;
  out["min_documents"] = e.min_documents;
  out["max_documents"] = e.max_documents;
  out["low_precision"] = e.low_precision;
  out["data"] = e.data;
  out["n"] = e.n;
  out["dense_score"] = e.dense_score;
  out["mode_score"] = e.mode_score;
  out["retained_low"] = e.retained_low;
  out["retained_high"] = e.retained_high;
  out["mean_kl"] = e.mean_kl;
  out["kl_high"] = e.kl_high;
  out["p95_kl"] = e.p95_kl;
  out["top1"] = e.top1;
  out["agreement"] = e.agreement;
  out["needle_n"] = e.needle_n;
  out["needle_lost"] = e.needle_lost;
  out["needle_loss_high"] = e.needle_loss_high;
  out["length_ratio"] = e.length_ratio;
  out["ttft_ratio"] = e.ttft_ratio;
  out["reaches"] = level_name(level_of(e));  // for people; never read back
  return out;
}

// Bits of the mantissa; 0 for what is none of the plain kinds of rows: those compare to nothing.
int row_precision(std::string_view kv_dtype) {
  if (kv_dtype == "f32") return 23;
  if (kv_dtype == "f16") return 10;
  return kv_dtype == "bf16" ? 7 : 0;
}

}  // namespace

const char* level_name(Level level) { return kLevels[static_cast<size_t>(level)]; }
Result<Level> parse_level(std::string_view name) {
  RK_TRY(const Level level, parse_name<Level>(kLevels, name, "quality"));
  if (level == Level::kNone) {
    return invalid_argument("quality: \"none\" is none of strict, balanced, fast");
  }
  return level;
}
const char* fit_name(Fit fit) { return kFits[static_cast<size_t>(fit)]; }
Result<Fit> parse_fit(std::string_view name) { return parse_name<Fit>(kFits, name, "fit"); }

double kl_bound(Level level) {
  for (const Bound& b : kBounds) {
    if (b.level == level) return b.kl;
  }
  return INFINITY;
}

Level level_of(const CardEntry& e) {
  for (const Bound& b : kBounds) {
    if (b.level == Level::kStrict && e.low_precision) continue;
    const bool refuted = e.dense_score > 0 && e.retained_high < b.retained;
    if (e.kl_high <= b.kl && e.needle_loss_high <= b.needle_loss && !refuted) return b.level;
  }
  return Level::kNone;
}

Result<Card> Card::parse(std::string_view text, const std::string& name) {
  if (text.size() > kMaxBytes) {
    return invalid_argument(name, ": ", text.size(), " bytes, a card may have ", kMaxBytes);
  }
  json::parse_options limits;
  limits.max_depth = 8;
  json::error_code error;
  const json::value root =
      json::parse(json::string_view(text.data(), text.size()), error, {}, limits);
  if (error || !root.is_object()) return data_loss(name, ": no JSON object: ", error.message());
  Fields f(root.get_object(), name);
  if (f.text("format") != "redknot card") f.complain("format", "is not \"redknot card\"");
  const int64_t version = f.count("version");
  if (version != kVersion) {
    f.complain("version", cat(version, ", this program reads version ", kVersion));
  }
  Card card;
  card.model = f.text("model");
  card.weights = f.text("weights");
  card.plan = f.text("plan");
  card.kv_dtype = f.text("kv_dtype");
  card.provenance = f.text("provenance");
  RK_RETURN_IF_ERROR(f.status());
  const json::value* entries = root.get_object().if_contains("entries");
  if (entries == nullptr || !entries->is_array()) {
    return invalid_argument(name, ".entries: not an array");
  }
  if (entries->get_array().size() > kMaxEntries) {
    return invalid_argument(name, ".entries: ", entries->get_array().size(), " entries, at most ",
                            kMaxEntries);
  }
  for (size_t i = 0; i < entries->get_array().size(); ++i) {
    RK_TRY(CardEntry entry, read_entry(entries->get_array()[i], cat(name, ".entries[", i, "]")));
    card.entries.push_back(std::move(entry));
  }
  return card;
}

Result<Card> Card::load(const std::string& path) {
  RK_TRY(const std::string text, read_file(path, kMaxBytes));
  return parse(text, path);
}

std::string Card::to_json() const {
  json::array list;
  for (const CardEntry& e : entries) list.push_back(write_entry(e));
  return json::serialize(json::object{{"format", "redknot card"},
                                      {"version", kVersion},
                                      {"model", model},
                                      {"weights", weights},
                                      {"plan", plan},
                                      {"kv_dtype", kv_dtype},
                                      {"provenance", provenance},
                                      {"entries", list}}) +
         "\n";
}

Status check_card(const Card& card, const CardIdentity& identity, const std::string& name) {
  const int measured = row_precision(card.kv_dtype);
  const bool finer = measured > 0 && row_precision(identity.kv_dtype) > measured;
  const std::tuple<const char*, const std::string&, const std::string&> fields[] = {
      {"weights", card.weights, identity.weights},
      {"plan", card.plan, identity.plan},
      {"kv_dtype", finer ? identity.kv_dtype : card.kv_dtype, identity.kv_dtype}};
  for (const auto& [field, theirs, ours] : fields) {
    if (theirs != ours) {
      return invalid_argument(name, ": ", field, " is ", theirs, ", this engine's is ", ours,
                              "; the card was measured on something else");
    }
  }
  return {};
}

Result<std::optional<Card>> find_cards(std::span<const std::string> folders,
                                       const std::function<Result<CardIdentity>()>& identity) {
  namespace fs = std::filesystem;
  std::vector<fs::path> files;
  for (const std::string& folder : folders) {
    std::error_code error;
    const size_t first = files.size();
    for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
      std::error_code ignored;
      const bool pipe = it->is_fifo(ignored);  // nobody may ever write into it
      if (it->path().extension() == ".json" && !pipe) files.push_back(it->path());
    }
    std::sort(files.begin() + static_cast<std::ptrdiff_t>(first), files.end());
  }
  std::optional<CardIdentity> ours;
  std::optional<Card> found;
  for (const fs::path& file : files) {
    auto card = Card::load(file.string());
    if (!card.ok()) {
      log::warn("card left out: ", card.status().message());
      continue;
    }
    if (!ours) {
      RK_TRY(ours, identity());
    }
    if (!check_card(*card, *ours, file.string()).ok()) continue;
    log::info("card: ", file.string(), ", ", card->entries.size(), " settings");
    if (!found) {
      found = std::move(card).value();
    } else {
      found->entries.insert(found->entries.end(), card->entries.begin(), card->entries.end());
    }
  }
  return found;
}

}  // namespace rk::engine
