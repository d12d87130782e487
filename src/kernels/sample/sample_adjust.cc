#include <algorithm>
#include <map>

#include "kernels/sample/sample_cuda.h"

namespace rk::kernels {

SampleRow make_sample_row(const SampleOptions& o, const SampleHistory& history, uint64_t draw,
                          int64_t vocab_size, std::vector<SampleAdjust>& adjust) {
  SampleRow row{.temperature = o.temperature,
                .top_p = o.top_p,
                .min_p = o.min_p,
                .repetition_penalty = o.repetition_penalty,
                .presence_penalty = o.presence_penalty,
                .frequency_penalty = o.frequency_penalty,
                .top_k = o.top_k,
                .adjust_begin = static_cast<int32_t>(adjust.size()),
                .seed = o.seed,
                .draw = draw};
  std::map<int32_t, SampleAdjust> tokens;
  const auto entry = [&](int32_t token) -> SampleAdjust* {
    if (token < 0 || token >= vocab_size) return nullptr;
    SampleAdjust& a = tokens[token];
    a.token = token;
    return &a;
  };
  if (o.repetition_penalty != 1.0F) {
    for (const auto& ids : {history.prompt, history.generated}) {
      for (const int32_t id : ids) {
        if (SampleAdjust* a = entry(id)) a->seen = 1;
      }
    }
  }
  if (o.presence_penalty != 0.0F || o.frequency_penalty != 0.0F) {
    for (const int32_t id : history.generated) {
      if (SampleAdjust* a = entry(id)) ++a->count;
    }
  }
  for (const auto& [token, a] : tokens) adjust.push_back(a);
  for (const auto& [token, bias] : o.logit_bias) {
    if (token >= 0 && token < vocab_size) adjust.push_back({.token = token, .bias = bias});
  }
  std::stable_sort(adjust.begin() + row.adjust_begin, adjust.end(),
                   [](const SampleAdjust& a, const SampleAdjust& b) { return a.token < b.token; });
  row.adjust_end = static_cast<int32_t>(adjust.size());
  return row;
}

}  // namespace rk::kernels
