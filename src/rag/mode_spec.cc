#include "rag/mode_spec.h"

#include <algorithm>

#include "base/check.h"

namespace rk::rag {

void ModeSpec::apply(engine::Request& request) const {
  request.select = engine::SelectUnits::kBlocks;    // where the name says nothing
  RK_CHECK(engine::read_mode(name, request).ok());  // it was read before
}

Result<ModeSpec> parse_mode_spec(std::string_view text) {
  engine::Request request;
  RK_RETURN_IF_ERROR(engine::read_mode(text, request));
  constexpr std::string_view kUnsaid = ":blocks";
  if (text.ends_with(kUnsaid)) text.remove_suffix(kUnsaid.size());
  return ModeSpec{std::string(text), request.mode};
}

Result<std::vector<ModeSpec>> parse_mode_list(std::string_view text) {
  std::vector<ModeSpec> modes;
  RK_TRY(auto dense, parse_mode_spec("dense"));
  modes.push_back(std::move(dense));
  std::vector<std::string> given;
  for (const std::string& name : split_list(text)) {
    RK_TRY(auto spec, parse_mode_spec(name));
    if (std::find(given.begin(), given.end(), spec.name) != given.end()) {
      return invalid_argument("mode '", spec.name, "' is given twice");
    }
    given.push_back(spec.name);
    if (name != "dense") modes.push_back(std::move(spec));
  }
  return modes;
}

std::vector<std::string> split_list(std::string_view text) {
  std::vector<std::string> parts;
  while (!text.empty()) {
    const size_t comma = text.find(',');
    std::string_view part = text.substr(0, comma);
    text = comma == std::string_view::npos ? std::string_view() : text.substr(comma + 1);
    const size_t begin = part.find_first_not_of(" \t");
    if (begin == std::string_view::npos) continue;
    parts.emplace_back(part.substr(begin, part.find_last_not_of(" \t") - begin + 1));
  }
  return parts;
}

}  // namespace rk::rag
