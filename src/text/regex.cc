#include "text/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "text/unicode.h"

namespace rk::text {
namespace {
constexpr size_t kMaxPatternBytes = 16384;
constexpr uint32_t kMatchLimit = 1'000'000;
constexpr uint32_t kHeapLimitKib = 65536;
}  // namespace

struct Regex::Code {
  pcre2_code* code = nullptr;
  pcre2_match_context* context = nullptr;
  Code() = default;
  Code(const Code&) = delete;
  Code& operator=(const Code&) = delete;
  ~Code() {
    pcre2_match_context_free(context);
    pcre2_code_free(code);
  }
};

Result<Regex> Regex::compile(std::string_view pattern) {
  if (pattern.size() > kMaxPatternBytes) {
    return invalid_argument("regex of ", pattern.size(), " bytes, limit ", kMaxPatternBytes);
  }
  int error = 0;
  PCRE2_SIZE offset = 0;
  auto code = std::make_shared<Code>();
  code->code =
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                    PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &error, &offset, nullptr);
  if (code->code == nullptr) {
    PCRE2_UCHAR reason[160] = {};
    pcre2_get_error_message(error, reason, sizeof reason);
    return invalid_argument("regex: offset ", offset, ": ", reinterpret_cast<const char*>(reason));
  }
  // Without JIT matching is slower and otherwise the same.
  pcre2_jit_compile(code->code, PCRE2_JIT_COMPLETE);
  code->context = pcre2_match_context_create(nullptr);
  if (code->context == nullptr) return exhausted("regex: no memory for a match context");
  pcre2_set_match_limit(code->context, kMatchLimit);
  pcre2_set_heap_limit(code->context, kHeapLimitKib);
  Regex regex;
  regex.code_ = std::move(code);
  return regex;
}

Regex::Search::Search(const Regex& regex, std::string_view text)
    : regex_(regex),
      text_(text),
      match_data_(pcre2_match_data_create_from_pattern(regex.code_->code, nullptr)) {}

Regex::Search::~Search() { pcre2_match_data_free(static_cast<pcre2_match_data*>(match_data_)); }

bool Regex::Search::next(size_t& begin, size_t& end) {
  auto* data = static_cast<pcre2_match_data*>(match_data_);
  if (data == nullptr || pos_ > text_.size()) return false;
  if (after_empty_) {  // as Rust's find_iter: go on one character later
    if (pos_ == text_.size()) return false;
    pos_ += decode_utf8(&text_[pos_]).size;
  }
  const auto match = [&](uint32_t options) {
    return pcre2_match(regex_.code_->code, reinterpret_cast<PCRE2_SPTR>(text_.data()), text_.size(),
                       pos_, PCRE2_NO_UTF_CHECK | options, data, regex_.code_->context);
  };
  int rc = match(0);
  if (rc == PCRE2_ERROR_JIT_STACKLIMIT) rc = match(PCRE2_NO_JIT);
  if (rc < 0) return false;
  const PCRE2_SIZE* bounds = pcre2_get_ovector_pointer(data);
  begin = bounds[0], end = bounds[1];
  if (end < begin || begin < pos_) return false;  // \K can do that
  pos_ = end;
  after_empty_ = begin == end;
  return true;
}

}  // namespace rk::text
