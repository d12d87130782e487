#include "engine/guardian.h"

#include <cstddef>

namespace rk::engine {

void Lz77Counter::push(int32_t token) {
  // What the automaton knows ends before this token, so a match may overlap the factor.
  const auto known = states_[static_cast<size_t>(match_)].next.find(token);
  if (known != states_[static_cast<size_t>(match_)].next.end()) {
    match_ = known->second;
    ++length_;
  } else {
    closed_ += length_ > 0 ? 1 : 0;
    const auto alone = states_[0].next.find(token);
    match_ = alone == states_[0].next.end() ? 0 : alone->second;
    length_ = match_ == 0 ? 0 : 1;
    closed_ += length_ == 0 ? 1 : 0;  // never seen: a factor of its own
  }
  extend(token);
  // A state may have been split: the factor is in the shorter half.
  while (match_ != 0 &&
         states_[static_cast<size_t>(states_[static_cast<size_t>(match_)].link)].length >=
             length_) {
    match_ = states_[static_cast<size_t>(match_)].link;
  }
}

void Lz77Counter::extend(int32_t token) {
  const auto at = [&](int32_t i) -> State& { return states_[static_cast<size_t>(i)]; };
  const auto made = static_cast<int32_t>(states_.size());
  states_.push_back({at(last_).length + 1, 0, {}});
  int32_t p = last_;
  for (; p >= 0 && !at(p).next.contains(token); p = at(p).link) at(p).next[token] = made;
  last_ = made;
  if (p < 0) return;
  const int32_t q = at(p).next[token];
  if (at(q).length == at(p).length + 1) {
    at(made).link = q;
    return;
  }
  const auto copy = static_cast<int32_t>(states_.size());
  states_.push_back({at(p).length + 1, at(q).link, at(q).next});
  for (; p >= 0; p = at(p).link) {
    const auto it = at(p).next.find(token);
    if (it == at(p).next.end() || it->second != q) break;
    it->second = copy;
  }
  at(q).link = at(made).link = copy;
}

bool Guardian::stop_after(int32_t token) {
  factors_.push(token);
  if (++num_tokens_ % kInterval != 0) return false;
  const int64_t now = factors_.num_factors();
  if (now - before_ < kMinGrowth) return true;
  before_ = now;
  return false;
}

}  // namespace rk::engine
