// The JSON reader of head plans: our format, and the published reference's files (spec B 1.2).
#include <algorithm>
#include <boost/json/parse.hpp>
#include <boost/json/value.hpp>
#include <cmath>
#include <fstream>
#include <initializer_list>
#include <utility>

#include "base/check.h"
#include "kv/head_plan.h"

namespace rk::kv {
namespace json = boost::json;
namespace {

/// At most 40 printable bytes of a file's text, for messages.
std::string shown(std::string_view text) {
  std::string out;
  for (const char c : text.substr(0, 40)) out += c >= 32 && c < 127 ? c : '?';
  return text.size() > 40 ? out + "..." : out;
}

std::string shown(const json::value& v) {
  if (v.is_string()) return cat("\"", shown(std::string_view(v.get_string())), "\"");
  if (v.is_int64()) return cat(v.get_int64());
  if (v.is_uint64()) return cat(v.get_uint64());
  if (v.is_double()) return cat(v.get_double());
  if (v.is_bool()) return v.get_bool() ? "true" : "false";
  if (v.is_null()) return "no number";  // NaN and infinities arrive here, see without_nan
  return v.is_array() ? "an array" : "an object";
}

/// Python writes NaN, Infinity and -Infinity bare, which no JSON parser takes. They become null of
/// the same length, so that the message can name the layer and head they stand at.
std::string without_nan(std::string_view text) {
  std::string out(text);
  bool in_string = false;
  for (size_t i = 0; i < out.size(); ++i) {
    if (in_string) {
      if (out[i] == '\\')
        ++i;
      else if (out[i] == '"')
        in_string = false;
      continue;
    }
    if (out[i] == '"') in_string = true;
    for (const std::string_view word : {"-Infinity", "Infinity", "NaN"}) {
      if (out.compare(i, word.size(), word) != 0) continue;
      out.replace(i, word.size(),
                  std::string("null").append(word.size() > 4 ? word.size() - 4 : 0, ' '));
      break;
    }
  }
  return out;
}

/// The integer a value stands for (512 and 512.0), or false.
bool to_int(const json::value& v, int64_t& out) {
  if (v.is_int64()) return out = v.get_int64(), true;
  if (!v.is_double()) return false;
  const double d = v.get_double();
  if (!(std::fabs(d) < 9e15) || d != std::floor(d)) return false;
  return out = static_cast<int64_t>(d), true;
}

}  // namespace

/// One parse: the file's name, the shape it must have, the root object.
class HeadPlanReader {
 public:
  HeadPlanReader(std::string_view name, const KvShape& shape) : name_(name), shape_(shape) {}

  Result<HeadPlan> read(std::string_view text, std::string_view fingerprint) {
    RK_RETURN_IF_ERROR(parse_root(text));
    const bool ours = root_.contains("format");
    if (ours) RK_RETURN_IF_ERROR(check_header(fingerprint));
    RK_RETURN_IF_ERROR(check_count("num_layers", shape_.num_layers));
    RK_RETURN_IF_ERROR(check_count("num_kv_heads", shape_.num_kv_heads));
    RK_TRY(HeadPlan plan, ours ? read_ours() : read_reference());
    RK_RETURN_IF_ERROR(read_top_p(plan));
    return plan;
  }

 private:
  template <class... Args>
  Status bad(const Args&... args) const {
    return invalid_argument(name_, ": ", args...);
  }

  Status parse_root(std::string_view text) {
    if (static_cast<int64_t>(text.size()) > HeadPlan::kMaxFileBytes) {
      return bad("head plan is ", text.size(), " bytes, at most ", HeadPlan::kMaxFileBytes);
    }
    json::parse_options options;
    options.max_depth = 16;
    boost::system::error_code error;
    json::value value = json::parse(without_nan(text), error, {}, options);
    if (error) return bad("head plan is not valid JSON: ", error.message());
    if (!value.is_object()) return bad("head plan is ", shown(value), ", an object expected");
    root_ = std::move(value.get_object());
    return {};
  }

  Status check_header(std::string_view fingerprint) {
    static constexpr std::string_view kKnown[] = {
        "format",          "version", "model_fingerprint", "num_layers", "num_kv_heads",
        "retrieval_top_p", "classes", "windows",           "sinks",      "low_precision_middle",
        "comment"};
    for (const auto& entry : root_) {
      if (std::ranges::find(kKnown, std::string_view(entry.key())) == std::end(kKnown)) {
        return bad("unknown key \"", shown(std::string_view(entry.key())), "\"");
      }
    }
    if (const json::value& f = root_.at("format");
        !f.is_string() || f.get_string() != "redknot.head_plan") {
      return bad("format is ", shown(f), ", \"redknot.head_plan\" expected");
    }
    RK_RETURN_IF_ERROR(check_count("version", 1));
    if (const json::value* m = root_.if_contains("low_precision_middle"); m && !m->is_null()) {
      return unimplemented(name_, ": low_precision_middle is not built yet");
    }
    const json::value* f = root_.if_contains("model_fingerprint");
    if (f == nullptr) return {};
    if (!f->is_string() || f->get_string().size() > 256) {
      return bad("model_fingerprint is ", shown(*f), ", a string of at most 256 bytes expected");
    }
    fingerprint_ = std::string_view(f->get_string());
    if (!fingerprint_.empty() && !fingerprint.empty() && fingerprint_ != fingerprint) {
      return bad("head plan is for model ", shown(fingerprint_), ", this model is ",
                 shown(fingerprint));
    }
    return {};
  }

  /// A required integer key that must have one value.
  Status check_count(std::string_view key, int64_t want) const {
    const json::value* v = root_.if_contains(key);
    if (v == nullptr) return bad("key \"", key, "\" is missing");
    int64_t got = 0;
    if (!to_int(*v, got)) return bad(key, " is ", shown(*v), ", an integer expected");
    if (got != want) {
      return bad("head plan has ", key, " ", got, key == "version" ? ", known: " : ", model has ",
                 want);
    }
    return {};
  }

  /// visit(layer, head, value) over an [L][H] matrix; every row's length is checked.
  template <class Visit>
  Status each(std::string_view key, const Visit& visit) const {
    const json::value* v = root_.if_contains(key);
    if (v == nullptr) return bad("key \"", key, "\" is missing");
    if (!v->is_array()) return bad(key, " is ", shown(*v), ", a matrix expected");
    const json::array& layers = v->get_array();
    if (static_cast<int64_t>(layers.size()) != shape_.num_layers) {
      return bad(key, " has ", layers.size(), " layers, model has ", shape_.num_layers);
    }
    for (int l = 0; l < shape_.num_layers; ++l) {
      const json::value& row = layers[static_cast<size_t>(l)];
      if (!row.is_array()) return bad(key, " layer ", l, " is ", shown(row), ", an array expected");
      const json::array& heads = row.get_array();
      if (static_cast<int64_t>(heads.size()) != shape_.num_kv_heads) {
        return bad(key, " layer ", l, " has ", heads.size(), " heads, model has ",
                   shape_.num_kv_heads);
      }
      for (int h = 0; h < shape_.num_kv_heads; ++h) {
        RK_RETURN_IF_ERROR(visit(l, h, heads[static_cast<size_t>(h)]));
      }
    }
    return {};
  }

  HeadPolicy& policy(int layer, int head) {
    return policies_[static_cast<size_t>(layer) * static_cast<size_t>(shape_.num_kv_heads) +
                     static_cast<size_t>(head)];
  }

  Status read_classes(std::string_view key, bool legacy) {
    return each(key, [&](int l, int h, const json::value& v) -> Status {
      static constexpr std::pair<std::string_view, HeadClass> kNames[] = {
          {"local", HeadClass::kLocal},         {"global", HeadClass::kGlobal},
          {"retrieval", HeadClass::kRetrieval}, {"dense", HeadClass::kDense},
          {"local_full", HeadClass::kLocal},    {"limited", HeadClass::kLocal},
          {"streaming", HeadClass::kLocal},     {"sink_dominant", HeadClass::kLocal}};
      const size_t num_known = legacy ? std::size(kNames) : 4;
      for (size_t i = 0; v.is_string() && i < num_known; ++i) {
        if (v.get_string() != kNames[i].first) continue;
        policy(l, h).cls = kNames[i].second;
        return {};
      }
      return bad("layer ", l, " head ", h, ": class ", shown(v),
                 " is unknown; known: local, global, retrieval, dense");
    });
  }

  /// One integer in [least, kMaxRows] per head.
  Status read_rows(std::string_view key, std::string_view what, int32_t HeadPolicy::*field,
                   int64_t least) {
    return each(key, [&](int l, int h, const json::value& v) -> Status {
      int64_t rows = 0;
      if (v.is_uint64()) rows = HeadPlan::kMaxRows + int64_t{1};
      if (!v.is_uint64() && !to_int(v, rows)) {
        return bad("layer ", l, " head ", h, ": ", what, " is ", shown(v), ", an integer expected");
      }
      if (rows < least || rows > HeadPlan::kMaxRows) {
        return bad("layer ", l, " head ", h, ": ", what, " ", shown(v), " is outside ", least, "..",
                   HeadPlan::kMaxRows);
      }
      policy(l, h).*field = static_cast<int32_t>(rows);
      return {};
    });
  }

  Result<HeadPlan> finish() {
    Result<HeadPlan> plan = HeadPlan::from_policies(
        shape_.num_layers, shape_.num_kv_heads, std::move(policies_), std::string(fingerprint_));
    if (!plan.ok()) return Status(plan.code(), cat(name_, ": ", plan.status().message()));
    return plan;
  }

  void start() {
    policies_.resize(static_cast<size_t>(shape_.num_layers) *
                     static_cast<size_t>(shape_.num_kv_heads));
  }

  Result<HeadPlan> read_ours() {
    start();
    RK_RETURN_IF_ERROR(read_classes("classes", false));
    RK_RETURN_IF_ERROR(read_rows("windows", "window", &HeadPolicy::window, -1));
    RK_RETURN_IF_ERROR(read_rows("sinks", "sink", &HeadPolicy::sink, 0));
    return finish();
  }

  Result<HeadPlan> read_reference() {
    start();
    RK_RETURN_IF_ERROR(read_classes("kv_head_classification", true));
    RK_RETURN_IF_ERROR(read_rows("kv_head_max_distance", "max_distance", &HeadPolicy::window, -1));
    for (HeadPolicy& p : policies_) p.sink = HeadPlan::kDefaultSink;
    if (root_.contains("kv_head_sink_size")) {
      RK_RETURN_IF_ERROR(read_rows("kv_head_sink_size", "sink", &HeadPolicy::sink, 0));
    }
    int64_t dense_layers = 0;
    if (const json::value* v = root_.if_contains("dense_prefix_layers")) {
      if (!to_int(*v, dense_layers) || dense_layers < 0 || dense_layers > shape_.num_layers) {
        return bad("dense_prefix_layers is ", shown(*v), ", 0..", shape_.num_layers, " expected");
      }
    }
    for (size_t i = 0; i < policies_.size(); ++i) {
      HeadPolicy& p = policies_[i];
      const bool in_prefix = static_cast<int64_t>(i) < dense_layers * shape_.num_kv_heads;
      if (in_prefix) p.cls = HeadClass::kDense;
      if (p.cls != HeadClass::kLocal)
        p.window = -1;
      else if (p.window <= 0)
        p.window = HeadPlan::kDefaultWindow;
    }
    return finish();
  }

  Status read_top_p(HeadPlan& plan) const {
    const json::value* v = root_.if_contains("retrieval_top_p");
    if (v == nullptr) return {};
    int64_t whole = 0;
    double p = v->is_double() ? v->get_double() : -1.0;
    if (to_int(*v, whole)) p = static_cast<double>(whole);
    if (!(p > 0.0 && p <= 1.0)) {
      return bad("retrieval_top_p is ", shown(*v), ", a number above 0 and up to 1 expected");
    }
    plan.retrieval_top_p_ = p;
    return {};
  }

  std::string_view name_;
  KvShape shape_;
  json::object root_;
  std::string_view fingerprint_;  ///< points into root_
  std::vector<HeadPolicy> policies_;
};

Result<HeadPlan> HeadPlan::parse(std::string_view json, std::string_view name, const KvShape& shape,
                                 std::string_view model_fingerprint) {
  if (shape.num_layers < 1 || shape.num_kv_heads < 1) {
    return invalid_argument(name, ": model is ", shape.num_layers, "x", shape.num_kv_heads,
                            ", no head to plan");
  }
  return HeadPlanReader(name, shape).read(json, model_fingerprint);
}

Result<HeadPlan> HeadPlan::load(const std::string& path, const KvShape& shape,
                                std::string_view model_fingerprint) {
  std::ifstream in(path, std::ios::binary | std::ios::ate);
  if (!in) return not_found(path, ": head plan cannot be opened");
  const auto size = static_cast<int64_t>(in.tellg());
  if (size < 0) return invalid_argument(path, ": head plan is not a regular file");
  if (size > kMaxFileBytes) {
    return invalid_argument(path, ": head plan is ", size, " bytes, at most ", kMaxFileBytes);
  }
  std::string text(static_cast<size_t>(size), '\0');
  in.seekg(0);
  if (!in.read(text.data(), size)) {
    return unavailable(path, ": ", in.gcount(), " of ", size, " bytes could be read");
  }
  return parse(text, path, shape, model_fingerprint);
}

}  // namespace rk::kv
