// Logging: error = act now, warn = degraded, info = life cycle, debug = per request; nothing per
// token. Goes to stderr. Thread-safe.
#pragma once

#include <string>
#include <string_view>

#include "base/status.h"

namespace rk::log {

enum class Level { kDebug, kInfo, kWarn, kError, kOff };

void set_level(Level level);
/// Errors: kInvalidArgument for anything but debug|info|warn|error|off.
Result<Level> parse_level(std::string_view name);
void write(Level level, const std::string& message);

template <class... Args>
void debug(const Args&... args) {
  write(Level::kDebug, cat(args...));
}
template <class... Args>
void info(const Args&... args) {
  write(Level::kInfo, cat(args...));
}
template <class... Args>
void warn(const Args&... args) {
  write(Level::kWarn, cat(args...));
}
template <class... Args>
void error(const Args&... args) {
  write(Level::kError, cat(args...));
}

}  // namespace rk::log
