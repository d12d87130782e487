// The server's own metrics and their Prometheus page. All series exist at 0 from the start.
// Thread-safe.
#pragma once

#include <memory>
#include <string>

#include "engine/request.h"
#include "engine/shadow.h"

namespace rk::serve {

class MetricsPage {
 public:
  MetricsPage(const std::string& version, const std::string& model);
  ~MetricsPage();

  /// A request that was answered; `finish_reason` is "" where nothing was generated.
  void answered(const std::string& route, int code, const std::string& finish_reason);
  /// "queue_full", "draining", "unauthorized", "forbidden", "too_large", "connections", "invalid".
  void rejected(const std::string& reason);
  void generated(const engine::RequestStats& stats);
  void gap(double itl_ms);
  void load(int running, int waiting);
  void shadow(const engine::ShadowTracker::Stats& stats);
  std::string text() const;

 private:
  struct Series;
  std::unique_ptr<Series> series_;
};

}  // namespace rk::serve
