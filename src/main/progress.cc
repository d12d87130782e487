#include "main/progress.h"

#include <unistd.h>

#include <cstdio>

#include "base/status.h"

namespace rk::cli {

using Clock = std::chrono::steady_clock;

Progress::Progress(bool quiet) : quiet_(quiet), terminal_(isatty(2) == 1) {}

Progress::~Progress() { end(); }

void Progress::note(const std::string& line) {
  end();
  if (!quiet_) std::fprintf(stderr, "%s\n", line.c_str());
}

bool Progress::due(const std::string& label, int64_t done, int64_t total) {
  if (quiet_) return false;
  const auto now = Clock::now();
  if (!open_ || label != label_) {
    end();
    open_ = true;
    label_ = label;
    start_ = now;
    first_ = done;
    shown_ = terminal_ ? Clock::time_point{} : now;
  }
  const auto pause = terminal_ ? std::chrono::milliseconds(100) : std::chrono::milliseconds(5000);
  if (now - shown_ < pause && done != total) return false;
  shown_ = now;
  return true;
}

double Progress::seconds() const {
  return std::chrono::duration<double>(Clock::now() - start_).count();
}

void Progress::show(const std::string& text) const {
  std::fprintf(stderr, terminal_ ? "\r%s\x1b[K" : "%s\n", text.c_str());
}

namespace {

int percent_of(int64_t done, int64_t total) {
  return static_cast<int>(100.0 * static_cast<double>(done) / static_cast<double>(total));
}

std::string bar_of(int percent) {
  std::string bar(30, '.');
  for (int i = 0; i < percent * 30 / 100 && i < 30; ++i) bar[static_cast<size_t>(i)] = '#';
  return bar;
}

}  // namespace

void Progress::bytes(const std::string& label, int64_t done, int64_t total) {
  if (!due(label, done, total)) return;
  const double rate = seconds() > 0.2 ? static_cast<double>(done - first_) / seconds() : 0;
  std::string text = label + "  " + human_bytes(done);
  if (total > 0) {
    const int percent = percent_of(done, total);
    if (terminal_) text = cat(label, " [", bar_of(percent), "] ", human_bytes(done));
    text += cat(" of ", human_bytes(total), ", ", percent, " %");
  }
  if (rate > 0) text += cat(", ", human_bytes(static_cast<int64_t>(rate)), "/s");
  show(text);
}

void Progress::steps(const std::string& label, int64_t done, int64_t total) {
  if (!due(label, done, total)) return;
  std::string text = cat(label, terminal_ ? cat(" [", bar_of(percent_of(done, total)), "] ") : "  ",
                         done, " of ", total);
  if (done > first_ && done < total) {
    const double left =
        seconds() / static_cast<double>(done - first_) * static_cast<double>(total - done);
    const auto whole = static_cast<int64_t>(left);
    text += whole < 120 ? cat(", ", whole, " s left") : cat(", ", whole / 60, " min left");
  }
  show(text);
}

void Progress::end() {
  if (open_ && terminal_ && !quiet_) std::fprintf(stderr, "\n");
  open_ = false;
}

std::string human_bytes(int64_t bytes) {
  const char* units[] = {"B", "kB", "MB", "GB", "TB"};
  double value = static_cast<double>(bytes);
  size_t unit = 0;
  while ((value >= 1000 || value <= -1000) && unit + 1 < std::size(units)) {
    value /= 1000;
    ++unit;
  }
  char text[32];
  std::snprintf(text, sizeof text, unit == 0 ? "%.0f %s" : "%.1f %s", value, units[unit]);
  return text;
}

}  // namespace rk::cli
