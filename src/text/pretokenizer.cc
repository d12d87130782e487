#include "text/pretokenizer.h"

#include "text/unicode.h"

namespace rk::text {
namespace {

constexpr std::string_view kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
constexpr std::string_view kLlama3Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kQwen2Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

}  // namespace

/// Turns matches and the text between them into pieces, and hands each to the next step.
class PreTokenizer::Splitter {
 public:
  Splitter(const PreTokenizer& owner, size_t step, std::string_view text, bool at_start,
           WordSink& sink)
      : owner_(owner), step_(step), text_(text), at_start_(at_start), sink_(sink) {}

  void part(size_t begin, size_t end, bool match) {
    if (owner_.steps_[step_].invert) match = !match;
    switch (owner_.steps_[step_].behavior) {
      case SplitBehavior::kIsolated:
        emit(begin, end);
        break;
      case SplitBehavior::kRemoved:
        if (!match) emit(begin, end);
        break;
      case SplitBehavior::kContiguous:
        if (match != last_match_) flush();
        hold(begin, end);
        break;
      case SplitBehavior::kMergedWithPrevious:
        if (!match || last_match_) flush();
        hold(begin, end);
        break;
      case SplitBehavior::kMergedWithNext:
        // A match goes to the text behind it; of several in a row the last one does.
        if (match || !last_match_) flush();
        hold(begin, end);
        break;
    }
    last_match_ = match;
  }
  /// The text before `begin` that no match covers yet, then the match.
  void match(size_t begin, size_t end) {
    if (begin > done_) part(done_, begin, false);
    part(begin, end, true);
    done_ = end;
  }
  void finish() {
    if (done_ < text_.size()) part(done_, text_.size(), false);
    flush();
  }

 private:
  void hold(size_t begin, size_t end) {
    if (held_begin_ == held_end_) held_begin_ = begin;
    held_end_ = end;
  }
  void flush() {
    emit(held_begin_, held_end_);
    held_begin_ = held_end_ = 0;
  }
  void emit(size_t begin, size_t end) {
    if (begin < end) {
      owner_.run_step(step_ + 1, text_.substr(begin, end - begin), at_start_ && begin == 0, sink_);
    }
  }

  const PreTokenizer& owner_;
  size_t step_;
  std::string_view text_;
  bool at_start_;
  WordSink& sink_;
  size_t done_ = 0, held_begin_ = 0, held_end_ = 0;
  bool last_match_ = false;
};

Status PreTokenizer::add_regex(std::string_view pattern, SplitBehavior behavior, bool invert) {
  // The known patterns match every character, so what lies between matches is empty: isolated and
  // "removed, inverted" are the same.
  if (behavior == (invert ? SplitBehavior::kRemoved : SplitBehavior::kIsolated)) {
    if (pattern == kGpt2Pattern) return add_gpt2(), Status();
    if (pattern == kLlama3Pattern) return add_cl100k(3), Status();
    if (pattern == kQwen2Pattern) return add_cl100k(1), Status();
  }
  RK_TRY(Regex regex, Regex::compile(pattern));
  steps_.push_back({.kind = Kind::kRegex,
                    .behavior = behavior,
                    .invert = invert,
                    .regex = std::make_shared<const Regex>(std::move(regex))});
  return Status();
}

void PreTokenizer::add_literal(std::string pattern, SplitBehavior behavior, bool invert) {
  steps_.push_back({.kind = Kind::kLiteral,
                    .behavior = behavior,
                    .invert = invert,
                    .literal = std::move(pattern)});
}

void PreTokenizer::add_char_class(uint8_t classes, SplitBehavior behavior) {
  steps_.push_back({.kind = Kind::kCharClass, .classes = classes, .behavior = behavior});
}

void PreTokenizer::add_metaspace(std::string mark, SpaceMarkScheme scheme, bool split) {
  steps_.push_back({.kind = Kind::kMetaspace,
                    .behavior = SplitBehavior::kMergedWithNext,
                    .split = split,
                    .scheme = scheme,
                    .literal = std::move(mark)});
}

void PreTokenizer::run(std::string_view text, bool at_start, WordSink& sink) const {
  if (!text.empty()) run_step(0, text, at_start, sink);
}

void PreTokenizer::run_step(size_t index, std::string_view text, bool at_start,
                            WordSink& sink) const {
  if (index == steps_.size()) return sink.word(text);
  const Step& step = steps_[index];
  const uint8_t* classes = char_classes();
  const auto each = [&](auto scan) {
    for (size_t pos = 0; pos < text.size();) {
      const size_t end = scan(pos);
      run_step(index + 1, text.substr(pos, end - pos), at_start && pos == 0, sink);
      pos = end;
    }
  };
  const auto split_literal = [&](std::string_view whole) {
    Splitter splitter(*this, index, whole, at_start, sink);
    for (size_t pos = 0; (pos = whole.find(step.literal, pos)) != std::string_view::npos;) {
      splitter.match(pos, pos + step.literal.size());
      pos += step.literal.size();
    }
    splitter.finish();
  };
  switch (step.kind) {
    case Kind::kGpt2:
      return each([&](size_t pos) { return scan_gpt2(text, pos, classes); });
    case Kind::kCl100k:
      return each([&](size_t pos) { return scan_cl100k(text, pos, step.max_digits, classes); });
    case Kind::kRegex: {
      Splitter splitter(*this, index, text, at_start, sink);
      Regex::Search search(*step.regex, text);
      for (size_t begin, end; search.next(begin, end);) splitter.match(begin, end);
      return splitter.finish();
    }
    case Kind::kLiteral:
      return split_literal(text);
    case Kind::kCharClass: {
      Splitter splitter(*this, index, text, at_start, sink);
      for (size_t pos = 0; pos < text.size();) {
        const CodePoint c = decode_utf8(&text[pos]);
        if (classes[c.value] & step.classes) splitter.match(pos, pos + c.size);
        pos += c.size;
      }
      return splitter.finish();
    }
    case Kind::kPrefixSpace: {
      if (text.front() == ' ') return run_step(index + 1, text, at_start, sink);
      const std::string prefixed = std::string(" ").append(text);
      return run_step(index + 1, prefixed, at_start, sink);
    }
    case Kind::kMetaspace: {
      std::string marked;
      marked.reserve(text.size() + text.size() / 4);
      for (const char c : text) c == ' ' ? (void)marked.append(step.literal) : marked.push_back(c);
      const bool wanted = step.scheme == SpaceMarkScheme::kAlways ||
                          (step.scheme == SpaceMarkScheme::kFirst && at_start);
      if (wanted && !marked.starts_with(step.literal)) marked.insert(0, step.literal);
      if (step.split) return split_literal(marked);
      return run_step(index + 1, marked, at_start, sink);
    }
  }
}

Result<PreTokenizer> pretokenizer_of_gguf(std::string_view name) {
  const auto any_of = [name](std::initializer_list<std::string_view> names) {
    for (const std::string_view n : names) {
      if (n == name) return true;
    }
    return false;
  };
  PreTokenizer pre;
  if (any_of({"gpt-2", "phi-2", "jina-es", "jina-de", "jina-v2-es", "jina-v2-de", "mpt", "olmo",
              "jais", "roberta-bpe"})) {
    pre.add_gpt2();
  } else if (any_of({"smollm", "starcoder", "refact", "command-r", "codeshell", "exaone",
                     "minerva-7b"})) {
    pre.add_char_class(kNumber, SplitBehavior::kIsolated);
    pre.add_gpt2();
  } else if (any_of({"llama3", "llama-v3", "llama-bpe", "falcon3", "dbrx", "smaug-bpe",
                     "chatglm-bpe", "glm4", "lfm2"})) {
    pre.add_cl100k(3);
  } else if (any_of({"qwen2", "stablelm2", "deepseek-r1-qwen", "megrez"})) {
    pre.add_cl100k(1);
  } else if (any_of({"default", ""})) {
    const auto isolated = SplitBehavior::kIsolated;
    RK_RETURN_IF_ERROR(pre.add_regex(R"([\p{P}\$\+<=>\^~\|]+)", isolated, false));
    pre.add_gpt2();
    pre.add_char_class(kNumber, SplitBehavior::kContiguous);
    RK_RETURN_IF_ERROR(pre.add_regex("[0-9][0-9][0-9]", isolated, false));
  } else {
    return unimplemented("gguf: tokenizer.ggml.pre \"", name, "\"");
  }
  return pre;
}

}  // namespace rk::text
