#include <iterator>

#include "engine/request.h"

namespace rk::engine {
namespace {

struct Row {
  Mode mode;
  const char* name;
  bool built;
};
constexpr Row kModes[] = {
    {Mode::kDense, "dense", true},          {Mode::kPrefix, "prefix", true},
    {Mode::kReuse, "reuse", true},          {Mode::kBoundary, "boundary", true},
    {Mode::kSelective, "selective", false}, {Mode::kRedknot, "redknot", false},
};

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

}  // namespace rk::engine
