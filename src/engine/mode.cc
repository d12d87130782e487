#include <charconv>

#include "engine/request.h"
#include "kv/select_rows.h"

namespace rk::engine {
namespace {

constexpr const char* kNames[] = {"dense",  "prefix",     "reuse", "boundary", "selective",
                                  "random", "cacheblend", "none",  "redknot",  "auto"};

constexpr const char* kUnits[] = {"blocks", "both", "rows"};

template <class T>
bool read_number(std::string_view text, T& out) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  return error == std::errc() && end == text.data() + text.size();
}

}  // namespace

const char* mode_name(Mode mode) { return kNames[static_cast<int>(mode)]; }

Result<Mode> parse_mode(std::string_view name) {
  std::string known;
  for (size_t i = 0; i < std::size(kNames); ++i) {
    if (name == kNames[i]) return static_cast<Mode>(i);
    known += cat(known.empty() ? "" : ", ", kNames[i]);
  }
  return invalid_argument("mode: '", name, "' is none of ", known);
}

const char* select_name(SelectUnits units) { return kUnits[static_cast<int>(units)]; }

Result<SelectUnits> parse_select(std::string_view name) {
  for (size_t i = 0; i < std::size(kUnits); ++i) {
    if (name == kUnits[i]) return static_cast<SelectUnits>(i);
  }
  return invalid_argument("select: '", name, "' is none of blocks, both, rows");
}

Status check_select(Mode mode, SelectUnits units) {
  const bool is_rival = mode == Mode::kRandom || mode == Mode::kCacheblend;
  if (!is_rival || units != SelectUnits::kBoth) return {};
  return invalid_argument("select: ", mode_name(mode), " takes blocks or rows, not both");
}

double mode_share(const Request& request) {
  if (request.mode == Mode::kRedknot) return request.ffn_threshold;
  return takes_ratio(request.mode) ? request.selective_ratio : 0;
}

void set_mode_share(Request& request, double share) {
  if (request.mode == Mode::kRedknot) request.ffn_threshold = share;
  if (takes_ratio(request.mode)) request.selective_ratio = share;
}

Status check_ffn_threshold(double threshold) {
  if (threshold > 0 && threshold <= 1) return {};
  return invalid_argument("redknot: an FFN threshold of ", threshold,
                          ", above 0 and up to 1 wanted");
}

Status read_mode(std::string_view text, Request& request) {
  const size_t colon = text.find(':');
  RK_TRY(request.mode, parse_mode(text.substr(0, colon)));
  if (colon == std::string_view::npos) return check_select(request.mode, request.select);
  std::string_view number = text.substr(colon + 1);
  if (has_share(request.mode)) {
    const size_t second = takes_ratio(request.mode) ? number.find(':') : std::string_view::npos;
    if (second != std::string_view::npos) {
      const auto units = parse_select(number.substr(second + 1));
      if (!units.ok()) {
        return invalid_argument("mode: '", text, "': ", units.status().message());
      }
      request.select = units.value();
      number = number.substr(0, second);
    }
    double share = 0;
    if (!read_number(number, share)) {
      return invalid_argument("mode: '", text, "': '", number, "' is no number");
    }
    set_mode_share(request, share);
    RK_RETURN_IF_ERROR(check_select(request.mode, request.select));
    return takes_ratio(request.mode) ? kv::check_ratio(share) : check_ffn_threshold(share);
  }
  if (request.mode == Mode::kBoundary) {
    if (!read_number(number, request.boundary_rows) || request.boundary_rows < 0) {
      return invalid_argument("mode: '", text, "': '", number, "' is no number of rows");
    }
    return {};
  }
  return invalid_argument("mode: '", text, "': ", mode_name(request.mode), " takes no number");
}

}  // namespace rk::engine
