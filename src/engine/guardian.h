// Lil's Guardian (arXiv 2601.03043): a stop rule for answers that only repeat themselves, as lossy
// attention makes them do. Every `interval` generated tokens the answer's LZ77 factors are counted;
// where fewer than `min_growth` came to the count before, generation stops. Pure: one answer's
// tokens in, a verdict out.
#pragma once

#include <cstdint>
#include <map>
#include <vector>

namespace rk::engine {

/// LZ77 factors of a text that grows: each factor is the longest piece that occurred before,
/// overlap with itself allowed, or a token never seen. Online, over a suffix automaton: O(log) a
/// token, memory a few hundred bytes a token.
class Lz77Counter {
 public:
  Lz77Counter() : states_(1) {}
  void push(int32_t token);
  /// The factor that is still growing counts as one.
  int64_t num_factors() const { return closed_ + (length_ > 0 ? 1 : 0); }

 private:
  struct State {
    int32_t length = 0, link = -1;
    std::map<int32_t, int32_t> next;
  };
  void extend(int32_t token);
  std::vector<State> states_;
  int32_t last_ = 0;   ///< the whole text
  int32_t match_ = 0;  ///< the growing factor's state
  int32_t length_ = 0;
  int64_t closed_ = 0;
};

class Guardian {
 public:
  static constexpr int64_t kInterval = 250, kMinGrowth = 20;  ///< the paper's
  /// Counts one generated token. True: stop here.
  bool stop_after(int32_t token);

 private:
  Lz77Counter factors_;
  int64_t num_tokens_ = 0, before_ = 0;
};

}  // namespace rk::engine
