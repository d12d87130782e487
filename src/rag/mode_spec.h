// A mode of the engine with its number, as the command line spells it: "dense", "boundary:32",
// "selective:0.15", "selective:0.15:both". Plain values.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "engine/request.h"

namespace rk::rag {

struct ModeSpec {
  std::string name;  ///< as spelled, less ":blocks"; the key in every result
  engine::Mode mode = engine::Mode::kDense;

  /// Sets mode, number and units of a request.
  void apply(engine::Request& request) const;
};

/// Errors: those of engine::read_mode.
Result<ModeSpec> parse_mode_spec(std::string_view text);

/// Names between commas. "dense" is what all are compared with: it comes first, asked or not.
/// Errors: those of parse_mode_spec; kInvalidArgument for a name given twice.
Result<std::vector<ModeSpec>> parse_mode_list(std::string_view text);

/// Parts between commas; spaces around them do not count, nor do empty parts.
std::vector<std::string> split_list(std::string_view text);

}  // namespace rk::rag
