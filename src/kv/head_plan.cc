#include "kv/head_plan.h"

#include <algorithm>
#include <boost/json/serialize.hpp>
#include <boost/json/value.hpp>

#include "base/check.h"
#include "kv/identity.h"

namespace rk::kv {
namespace json = boost::json;

const char* head_class_name(HeadClass cls) {
  switch (cls) {
    case HeadClass::kLocal:
      return "local";
    case HeadClass::kGlobal:
      return "global";
    case HeadClass::kRetrieval:
      return "retrieval";
    case HeadClass::kDense:
      return "dense";
  }
  return "?";
}

namespace {

/// Fields that mean nothing for a class get one value, so that equal plans are equal.
Result<HeadPolicy> normalised(HeadPolicy p, int layer, int head) {
  const auto where = [&] { return cat("layer ", layer, " head ", head); };
  if (p.cls == HeadClass::kGlobal || p.cls == HeadClass::kDense) return HeadPolicy{p.cls, -1, 0};
  const int32_t least = p.cls == HeadClass::kLocal ? 0 : -1;
  if (p.window < least || p.window > HeadPlan::kMaxRows) {
    return invalid_argument(where(), ": window ", p.window, " of a ", head_class_name(p.cls),
                            " head is outside ", least, "..", HeadPlan::kMaxRows);
  }
  if (p.sink < 0 || p.sink > HeadPlan::kMaxRows) {
    return invalid_argument(where(), ": sink ", p.sink, " is outside 0..", HeadPlan::kMaxRows);
  }
  if (p.cls == HeadClass::kLocal && p.window == 0 && p.sink == 0) {
    return invalid_argument(where(), ": window 0 and sink 0: the head would see nothing");
  }
  return p;
}

}  // namespace

HeadPlan HeadPlan::all_global(int num_layers, int num_kv_heads) {
  RK_CHECK(num_layers >= 0 && num_kv_heads >= 0);
  HeadPlan plan;
  plan.num_layers_ = num_layers;
  plan.num_kv_heads_ = num_kv_heads;
  plan.heads_.resize(static_cast<size_t>(num_layers) * static_cast<size_t>(num_kv_heads));
  return plan;
}

Result<HeadPlan> HeadPlan::from_policies(int num_layers, int num_kv_heads,
                                         std::vector<HeadPolicy> policies,
                                         std::string model_fingerprint) {
  const int64_t want = int64_t{num_layers} * num_kv_heads;
  if (num_layers < 0 || num_kv_heads < 0 || static_cast<int64_t>(policies.size()) != want) {
    return invalid_argument("head plan: ", policies.size(), " heads given, ", num_layers, "x",
                            num_kv_heads, " wanted");
  }
  for (size_t i = 0; i < policies.size(); ++i) {
    const auto heads = static_cast<size_t>(num_kv_heads);
    RK_TRY(policies[i],
           normalised(policies[i], static_cast<int>(i / heads), static_cast<int>(i % heads)));
  }
  HeadPlan plan;
  plan.num_layers_ = num_layers;
  plan.num_kv_heads_ = num_kv_heads;
  plan.heads_ = std::move(policies);
  plan.model_fingerprint_ = std::move(model_fingerprint);
  return plan;
}

const HeadPolicy& HeadPlan::at(int layer, int head) const {
  RK_CHECK(layer >= 0 && layer < num_layers_ && head >= 0 && head < num_kv_heads_);
  return heads_[static_cast<size_t>(layer) * static_cast<size_t>(num_kv_heads_) +
                static_cast<size_t>(head)];
}

bool HeadPlan::all_global() const { return count(HeadClass::kLocal) == 0; }

int64_t HeadPlan::count(HeadClass cls) const {
  return std::ranges::count_if(heads_, [cls](const HeadPolicy& p) { return p.cls == cls; });
}

std::string HeadPlan::to_json() const {
  json::array classes, windows, sinks;
  for (int layer = 0; layer < num_layers_; ++layer) {
    json::array c, w, s;
    for (int head = 0; head < num_kv_heads_; ++head) {
      const HeadPolicy& p = at(layer, head);
      c.emplace_back(head_class_name(p.cls));
      w.emplace_back(p.window);
      s.emplace_back(p.sink);
    }
    classes.emplace_back(std::move(c));
    windows.emplace_back(std::move(w));
    sinks.emplace_back(std::move(s));
  }
  json::object root;
  root["format"] = "redknot.head_plan";
  root["version"] = 1;
  root["model_fingerprint"] = model_fingerprint_;
  root["num_layers"] = num_layers_;
  root["num_kv_heads"] = num_kv_heads_;
  root["retrieval_top_p"] = retrieval_top_p_;
  root["classes"] = std::move(classes);
  root["windows"] = std::move(windows);
  root["sinks"] = std::move(sinks);
  return json::serialize(root);
}

std::string HeadPlan::digest() const {
  IdentityBuilder id("head plan");
  id.add("num_layers", num_layers_).add("num_kv_heads", num_kv_heads_);
  id.add("retrieval_top_p", count(HeadClass::kRetrieval) > 0 ? retrieval_top_p_ : kDefaultTopP);
  std::vector<int32_t> words;
  words.reserve(heads_.size() * 3);
  for (const HeadPolicy& p : heads_) {
    words.insert(words.end(), {static_cast<int32_t>(p.cls), p.window, p.sink});
  }
  id.add("heads", std::span<const int32_t>(words));
  return id.finish().hex();
}

}  // namespace rk::kv
