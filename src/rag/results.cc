#include "rag/results.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <boost/json.hpp>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <set>
#include <string_view>
#include <utility>

namespace rk::rag {
namespace {

namespace json = boost::json;

template <class T>
json::value optional_json(const std::optional<T>& v) {
  return v ? json::value(*v) : json::value();
}

json::object to_json(const ModeResult& m) {
  json::object out{{"mode", m.mode},
                   {"ran", m.ran},
                   {"answer", m.answer},
                   {"finish", m.finish},
                   {"answer_tokens", m.answer_tokens},
                   {"score", m.score},
                   {"exact_match", m.exact_match},
                   {"f1", m.f1},
                   {"kl", optional_json(m.kl)},
                   {"kl_tokens", m.kl_tokens},
                   {"same_top1", m.same_top1},
                   {"same_answer", m.same_answer},
                   {"ttft_ms", m.ttft_ms},
                   {"ingest_in_ttft_ms", m.ingest_in_ttft_ms},
                   {"tokens_per_s", optional_json(m.tokens_per_s)},
                   {"prefix_cached", m.prefix_cached},
                   {"document_cached", m.document_cached},
                   {"recomputed", m.recomputed},
                   {"fresh", m.fresh},
                   {"relocated", m.relocated},
                   {"kv_bytes", m.kv_bytes},
                   {"flops", m.flops},
                   {"bytes", m.bytes},
                   {"predicted_flops", m.predicted_flops},
                   {"predicted_bytes", m.predicted_bytes}};
  if (!m.recomputed_at.empty()) {
    json::array ranges;
    for (const auto& [begin, end] : m.recomputed_at) ranges.push_back(json::array{begin, end});
    out["recomputed_at"] = ranges;
  }
  return out;
}

constexpr double kMostFigure = 1e30;  // sums and ratios of such stay finite

bool plain_number(const json::value& v) {
  return v.is_number() && std::abs(v.to_number<double>()) <= kMostFigure;
}

// Reads fields of one object; the first that is missing, of another type or out of range is
// remembered.
class Fields {
 public:
  explicit Fields(const json::object& object) : object_(object) {}

  void read(const char* name, std::string& out) {
    if (const json::value* v = of(name, [](auto& x) { return x.is_string(); })) {
      out = std::string(v->get_string());
    }
  }
  void read(const char* name, bool& out) {
    if (const json::value* v = of(name, [](auto& x) { return x.is_bool(); })) out = v->get_bool();
  }
  void read(const char* name, double& out) {
    if (const json::value* v = of(name, plain_number)) out = v->to_number<double>();
  }
  void read(const char* name, int64_t& out) {
    if (const json::value* v = of(name, [](auto& x) { return x.is_int64(); })) out = v->get_int64();
  }
  void read(const char* name, std::optional<double>& out) {
    const json::value* v = of(name, [](auto& x) { return plain_number(x) || x.is_null(); });
    if (v != nullptr && v->is_number()) out = v->to_number<double>();
  }
  template <class Add>
  void each(const char* name, const Add& add) {
    const json::value* v = of(name, [](auto& x) { return x.is_array(); });
    if (v == nullptr) return;
    for (const json::value& entry : v->get_array()) {
      if (!add(entry) && bad_.empty()) bad_ = name;
    }
  }
  bool has(const char* name) const { return object_.contains(name); }
  const std::string& bad() const { return bad_; }

 private:
  template <class Fits>
  const json::value* of(const char* name, const Fits& fits) {
    const json::value* v = object_.if_contains(name);
    if (v != nullptr && fits(*v)) return v;
    if (bad_.empty()) bad_ = name;
    return nullptr;
  }
  const json::object& object_;
  std::string bad_;
};

bool read_ints(const json::value& v, std::vector<int>& out) {
  if (!v.is_int64() || !std::in_range<int>(v.get_int64())) return false;
  out.push_back(static_cast<int>(v.get_int64()));
  return true;
}

std::string read_mode(const json::object& object, ModeResult& m) {
  Fields f(object);
  f.read("mode", m.mode);
  f.read("ran", m.ran);
  f.read("answer", m.answer);
  f.read("finish", m.finish);
  f.read("answer_tokens", m.answer_tokens);
  f.read("score", m.score);
  f.read("exact_match", m.exact_match);
  f.read("f1", m.f1);
  f.read("kl", m.kl);
  f.read("kl_tokens", m.kl_tokens);
  f.read("same_top1", m.same_top1);
  f.read("same_answer", m.same_answer);
  f.read("ttft_ms", m.ttft_ms);
  f.read("ingest_in_ttft_ms", m.ingest_in_ttft_ms);
  f.read("tokens_per_s", m.tokens_per_s);
  f.read("prefix_cached", m.prefix_cached);
  f.read("document_cached", m.document_cached);
  f.read("recomputed", m.recomputed);
  f.read("fresh", m.fresh);
  f.read("relocated", m.relocated);
  f.read("kv_bytes", m.kv_bytes);
  f.read("flops", m.flops);
  f.read("bytes", m.bytes);
  f.read("predicted_flops", m.predicted_flops);
  f.read("predicted_bytes", m.predicted_bytes);
  if (f.has("recomputed_at")) {
    f.each("recomputed_at", [&](const json::value& v) {
      if (!v.is_array() || v.get_array().size() != 2) return false;
      const json::array& pair = v.get_array();
      if (!pair[0].is_int64() || !pair[1].is_int64()) return false;
      m.recomputed_at.emplace_back(pair[0].get_int64(), pair[1].get_int64());
      return true;
    });
  }
  return f.bad();
}

std::string system_error() { return std::strerror(errno); }

}  // namespace

const ModeResult* SampleResult::find(const std::string& mode) const {
  const auto at = std::ranges::find(modes, mode, &ModeResult::mode);
  return at == modes.end() ? nullptr : &*at;
}

std::string SampleResult::key() const { return cat(id, "/", prompt_digest); }

std::string to_json_line(const SampleResult& r) {
  json::array modes;
  for (const ModeResult& m : r.modes) modes.push_back(to_json(m));
  return json::serialize(
      json::object{{"id", r.id},
                   {"config", r.config},
                   {"task", r.task},
                   {"length_tokens", r.length_tokens},
                   {"prompt_tokens", r.prompt_tokens},
                   {"prompt_digest", r.prompt_digest},
                   {"num_documents", r.num_documents},
                   {"evidence", json::array(r.evidence.begin(), r.evidence.end())},
                   {"needle", r.needle},
                   {"question", r.question},
                   {"answers", json::array(r.answers.begin(), r.answers.end())},
                   {"ingest_ms", r.ingest_ms},
                   {"order", json::array(r.order.begin(), r.order.end())},
                   {"modes", modes}});
}

Result<SampleResult> parse_json_line(const std::string& line) {
  boost::system::error_code error;
  const json::value value = json::parse(line, error);
  if (error) return Status(Code::kDataLoss, cat("no JSON: ", error.message()));
  if (!value.is_object()) return Status(Code::kDataLoss, "no JSON object");
  SampleResult r;
  Fields f(value.get_object());
  f.read("id", r.id);
  f.read("config", r.config);
  f.read("task", r.task);
  f.read("length_tokens", r.length_tokens);
  f.read("prompt_tokens", r.prompt_tokens);
  f.read("prompt_digest", r.prompt_digest);
  f.read("num_documents", r.num_documents);
  f.read("needle", r.needle);
  f.read("question", r.question);
  f.read("ingest_ms", r.ingest_ms);
  f.each("evidence", [&](const json::value& v) { return read_ints(v, r.evidence); });
  f.each("order", [&](const json::value& v) { return read_ints(v, r.order); });
  f.each("answers", [&](const json::value& v) {
    if (v.is_string()) r.answers.emplace_back(v.get_string());
    return v.is_string();
  });
  std::string bad_in_mode;
  f.each("modes", [&](const json::value& v) {
    if (!v.is_object()) return false;
    const std::string bad = read_mode(v.get_object(), r.modes.emplace_back());
    if (bad_in_mode.empty()) bad_in_mode = bad;
    return bad.empty();
  });
  if (!f.bad().empty()) {
    return Status(Code::kDataLoss,
                  cat("field '", f.bad(), bad_in_mode.empty() ? "" : ".", bad_in_mode,
                      "' is missing, of another type or out of range"));
  }
  std::set<std::string_view> names;
  for (const ModeResult& m : r.modes) {
    if (!names.insert(m.mode).second) {
      return data_loss("modes: '", m.mode, "' is there twice");
    }
  }
  return r;
}

ResultsFile::~ResultsFile() {
  if (fd_ >= 0) close(fd_);  // gives the lock back
}

ResultsFile::ResultsFile(ResultsFile&& other) noexcept
    : path_(std::move(other.path_)),
      fd_(std::exchange(other.fd_, -1)),
      results_(std::move(other.results_)),
      by_id_(std::move(other.by_id_)) {}

Result<ResultsFile> ResultsFile::open(const std::string& path, const std::string& config) {
  ResultsFile file;
  file.path_ = path;
  file.fd_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (file.fd_ < 0) return unavailable(path, ": ", system_error());
  if (flock(file.fd_, LOCK_EX | LOCK_NB) != 0) {
    return unavailable(path, ": another bench is writing it");
  }
  RK_RETURN_IF_ERROR(file.read_all(config));
  return file;
}

Status ResultsFile::read_all(const std::string& config) {
  std::string text;
  char buffer[1 << 16];
  for (;;) {
    const ssize_t got = read(fd_, buffer, sizeof buffer);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return unavailable(path_, ": ", system_error());
    if (got == 0) break;
    text.append(buffer, static_cast<size_t>(got));
  }
  size_t begin = 0;
  for (int64_t number = 1;; ++number) {
    const size_t end = text.find('\n', begin);
    if (end == std::string::npos) break;  // what is left is half a line, or nothing
    auto result = parse_json_line(text.substr(begin, end - begin));
    if (!result.ok()) {
      return Status(Code::kDataLoss, cat(path_, ":", number, ": ", result.status().message()));
    }
    if (result->config != config) {
      return invalid_argument(path_, ":", number, ": a result of another configuration (",
                              result->config, ", this one is ", config,
                              "): another model, build, machine, mode list, seed or data; give "
                              "another --out");
    }
    by_id_[result->id] = results_.size();
    results_.push_back(std::move(result).value());
    begin = end + 1;
  }
  if (begin < text.size() && ftruncate(fd_, static_cast<off_t>(begin)) != 0) {
    return unavailable(path_, ": ", system_error());
  }
  if (lseek(fd_, 0, SEEK_END) < 0) return unavailable(path_, ": ", system_error());
  return {};
}

const SampleResult* ResultsFile::find(const std::string& id) const {
  const auto it = by_id_.find(id);
  return it == by_id_.end() ? nullptr : &results_[it->second];
}

Status ResultsFile::append(const SampleResult& result) {
  const std::string line = to_json_line(result) + "\n";
  // What is kept is what a later reader of the file gets, to the last bit.
  RK_TRY(SampleResult read_back, parse_json_line(line));
  for (size_t at = 0; at < line.size();) {
    const ssize_t wrote = write(fd_, line.data() + at, line.size() - at);
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote < 0) return unavailable(path_, ": ", system_error());
    at += static_cast<size_t>(wrote);
  }
  if (fdatasync(fd_) != 0) return unavailable(path_, ": ", system_error());
  by_id_[result.id] = results_.size();
  results_.push_back(std::move(read_back));
  return {};
}

}  // namespace rk::rag
