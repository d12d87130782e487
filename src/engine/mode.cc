#include <charconv>

#include "engine/request.h"
#include "kv/select_rows.h"

namespace rk::engine {
namespace {

struct Row {
  Mode mode;
  const char* name;
  bool built;
};
constexpr Row kModes[] = {
    {Mode::kDense, "dense", true},           {Mode::kPrefix, "prefix", true},
    {Mode::kReuse, "reuse", true},           {Mode::kBoundary, "boundary", true},
    {Mode::kSelective, "selective", true},   {Mode::kRandom, "random", true},
    {Mode::kCacheblend, "cacheblend", true}, {Mode::kNone, "none", true},
    {Mode::kRedknot, "redknot", false},      {Mode::kAuto, "auto", true},
};

template <class T>
bool read_number(std::string_view text, T& out) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  return error == std::errc() && end == text.data() + text.size();
}

}  // namespace

const char* mode_name(Mode mode) { return kModes[static_cast<int>(mode)].name; }

Result<Mode> parse_mode(std::string_view name) {
  std::string built;
  for (const Row& row : kModes) {
    if (name == row.name) {
      if (row.built) return row.mode;
      return unimplemented("mode '", name, "' is not built yet");
    }
    if (row.built) built += cat(built.empty() ? "" : ", ", row.name);
  }
  return invalid_argument("mode: '", name, "' is none of ", built);
}

Status read_mode(std::string_view text, Request& request) {
  const size_t colon = text.find(':');
  RK_TRY(request.mode, parse_mode(text.substr(0, colon)));
  if (colon == std::string_view::npos) return {};
  const std::string_view number = text.substr(colon + 1);
  if (takes_ratio(request.mode)) {
    if (!read_number(number, request.selective_ratio)) {
      return invalid_argument("mode: '", text, "': '", number, "' is no number");
    }
    return kv::check_ratio(request.selective_ratio);
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
