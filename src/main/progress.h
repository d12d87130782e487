// Progress of something long, on stderr: a bar that redraws itself on a terminal, a plain line now
// and then otherwise. One thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace rk::cli {

class Progress {
 public:
  /// `quiet` shows nothing at all.
  explicit Progress(bool quiet = false);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  /// One line of what happens now.
  void note(const std::string& line);
  /// `done` of `total` bytes (total < 0: unknown) of `label`; cheap to call often.
  void bytes(const std::string& label, int64_t done, int64_t total);
  /// `done` of `total` things of `label`, with the time that is left at this pace.
  void steps(const std::string& label, int64_t done, int64_t total);
  /// Ends the bar that is showing, if any.
  void end();

 private:
  /// True where it is time to show `done`; opens the bar of `label`.
  bool due(const std::string& label, int64_t done, int64_t total);
  double seconds() const;
  void show(const std::string& text) const;
  bool quiet_, terminal_, open_ = false;
  std::string label_;
  std::chrono::steady_clock::time_point start_, shown_;
  int64_t first_ = 0;
};

/// "98.4 MB"; decimal units.
std::string human_bytes(int64_t bytes);

}  // namespace rk::cli
