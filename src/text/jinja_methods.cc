// Methods of texts, dicts, lists and loops. Only those that change nothing exist.
#include <utf8proc.h>

#include <algorithm>
#include <limits>

#include "text/jinja_ops.h"

namespace rk::text::jinja {
namespace {

constexpr size_t kNone = std::string_view::npos;

struct Call {
  Machine& machine;
  const Value& self;
  std::string_view name;
  const std::vector<Value>& args;
  const Kwargs& kwargs;

  /// A text argument; null (with an error where it is of another type) if missing or None.
  const Text* text(size_t position, std::string_view key) const {
    const Value* value = argument(args, kwargs, position, key);
    if (!value || value->is_none()) return nullptr;
    if (value->is_undefined()) {
      machine.fail_undefined(*value);
    } else if (!value->text()) {
      machine.fail(cat(name, ": argument must be str, not ", type_name(*value)));
    }
    return value->text();
  }
  int64_t integer(size_t position, std::string_view key, int64_t fallback) const {
    const Value* value = argument(args, kwargs, position, key);
    if (!value || value->is_none()) return fallback;
    if (!value->is_integral())
      machine.fail(cat(name, ": argument must be int, not ", type_name(*value)));
    return value->is_integral() ? value->integer() : fallback;
  }
  Value missing() const { return machine.fail(cat(name, ": an argument is missing")); }
};

enum class Letters { kUpper, kLower, kTitle, kCapitalize };

Value change_case(Machine& machine, const Text& text, Letters how) {
  if (!machine.step(static_cast<int64_t>(text.size() / 8)) ||
      !machine.take_text(2 * static_cast<int64_t>(text.size())))
    return {};
  Text out;
  bool in_word = false;
  std::string piece;
  for (size_t pos = 0; pos < text.size();) {
    const size_t size = char_bytes(text.bytes, pos);
    const std::string_view character = std::string_view(text.bytes).substr(pos, size);
    const auto cp = static_cast<utf8proc_int32_t>(code_point(character));
    const bool up = how == Letters::kUpper || (how != Letters::kLower && !in_word);
    piece.clear();
    if (cp == 0xFFFD) {
      piece = character;
    } else if (cp == 0xDF && up) {
      piece = how == Letters::kUpper ? "SS" : "Ss";
    } else {
      const auto to = !up                      ? utf8proc_tolower(cp)
                      : how == Letters::kUpper ? utf8proc_toupper(cp)
                                               : utf8proc_totitle(cp);
      append_utf8(piece, static_cast<uint32_t>(to));
    }
    out.append(piece, text.any_untrusted(pos, pos + size));
    pos += size;
    in_word =
        how == Letters::kCapitalize || utf8proc_toupper(cp) != cp || utf8proc_tolower(cp) != cp;
  }
  return machine.text(std::move(out));
}

Value strip(const Call& call, bool left, bool right) {
  const Text& text = *call.self.text();
  const Text* chars = call.text(0, "chars");
  if (call.machine.failed()) return {};
  if (chars && !call.machine.step(static_cast<int64_t>(chars->size() * text.size() / 64)))
    return {};
  const std::string_view set = chars ? std::string_view(chars->bytes) : "";
  const Text::Run range = strip_range(text.bytes, chars ? &set : nullptr, left, right);
  return call.machine.slice(text, range.begin, range.end);
}

/// Splits at white space, at most `most` times; from the right if asked.
std::vector<Text::Run> split_space(std::string_view text, int64_t most) {
  std::vector<Text::Run> out;
  size_t pos = 0;
  while (true) {
    pos += strip_range(text.substr(pos), nullptr, true, false).begin;
    if (pos >= text.size()) return out;
    if (static_cast<int64_t>(out.size()) >= most) {
      out.push_back({pos, pos + strip_range(text.substr(pos), nullptr, false, true).end});
      return out;
    }
    size_t end = pos;
    while (end < text.size()) {
      const size_t size = char_bytes(text, end);
      if (is_space(code_point(text.substr(end, size)))) break;
      end += size;
    }
    out.push_back({pos, end});
    pos = end;
  }
}

/// Offsets of all hits, each paid for before it is stored; cut short after an error.
std::vector<size_t> find_all(Machine& machine, std::string_view text, std::string_view needle) {
  std::vector<size_t> hits;
  for (size_t pos = 0; (pos = find_bytes(text, needle, pos)) != kNone; pos += needle.size()) {
    if (!machine.step() || !machine.take(sizeof(size_t))) break;
    hits.push_back(pos);
  }
  return hits;
}

Value split(const Call& call, bool from_right) {
  Machine& machine = call.machine;
  const Text& text = *call.self.text();
  const Text* separator = call.text(0, "sep");
  int64_t most = call.integer(1, "maxsplit", -1);
  if (most < 0) most = std::numeric_limits<int64_t>::max();
  if (machine.failed() || !machine.step(static_cast<int64_t>(text.size() / 16))) return {};
  std::vector<Text::Run> runs;
  if (!separator) {
    if (from_right && most < std::numeric_limits<int64_t>::max()) {
      return machine.unimplemented("rsplit at white space with a count");
    }
    if (!machine.take(8 * static_cast<int64_t>(text.size()))) return {};
    runs = split_space(text.bytes, most);
  } else {
    if (separator->size() == 0) return machine.fail("empty separator");
    std::vector<size_t> hits = find_all(machine, text.bytes, separator->bytes);
    const size_t keep =
        static_cast<size_t>(std::min<int64_t>(most, static_cast<int64_t>(hits.size())));
    if (from_right) {
      hits.erase(hits.begin(), hits.end() - static_cast<int64_t>(keep));
    } else {
      hits.resize(keep);
    }
    size_t begin = 0;
    for (const size_t hit : hits) {
      runs.push_back({begin, hit});
      begin = hit + separator->size();
    }
    runs.push_back({begin, text.size()});
  }
  std::vector<Value> items;
  for (const auto& run : runs) {
    if (!machine.step()) return {};
    items.push_back(machine.slice(text, run.begin, run.end));
  }
  return machine.list(std::move(items));
}

Value splitlines(const Call& call) {
  const Text& text = *call.self.text();
  const bool keep = call.integer(0, "keepends", 0) != 0;
  std::vector<Value> items;
  for (size_t pos = 0; pos < text.size() && call.machine.step();) {
    size_t end = std::min(text.bytes.find_first_of("\r\n", pos), text.size());
    size_t next = end;
    if (next < text.size()) next += text.bytes.compare(next, 2, "\r\n") == 0 ? 2 : 1;
    items.push_back(call.machine.slice(text, pos, keep ? next : end));
    pos = next;
  }
  return call.machine.list(std::move(items));
}

Value replace(const Call& call) {
  Machine& machine = call.machine;
  const Text& text = *call.self.text();
  const Text *from = call.text(0, "old"), *to = call.text(1, "new");
  const int64_t most = call.integer(2, "count", -1);
  if (machine.failed()) return {};
  if (!from || !to) return call.missing();
  std::vector<size_t> hits;
  if (from->size() == 0) {
    if (!machine.take(static_cast<int64_t>(sizeof(size_t) * (text.size() + 1)))) return {};
    hits = char_offsets(text.bytes);
  } else {
    hits = find_all(machine, text.bytes, from->bytes);
  }
  if (most >= 0 && most < static_cast<int64_t>(hits.size())) hits.resize(static_cast<size_t>(most));
  int64_t size = 0;
  const auto hit_count = static_cast<int64_t>(hits.size());
  if (__builtin_mul_overflow(hit_count, static_cast<int64_t>(to->size()), &size) ||
      __builtin_add_overflow(size, static_cast<int64_t>(text.size()), &size)) {
    return machine.fail(Code::kExhausted, "replace: the result is too long");
  }
  if (!machine.step(hit_count + static_cast<int64_t>(text.size() / 64)) || !machine.take_text(size))
    return {};
  Text out;
  size_t pos = 0;
  for (const size_t hit : hits) {
    out.append(text, pos, hit);
    out.append(*to);
    pos = hit + from->size();
  }
  out.append(text, pos, text.size());
  return Value(std::make_shared<const Text>(std::move(out)));
}

Value starts_or_ends(const Call& call) {
  const std::string_view text = call.self.text()->bytes;
  if (call.args.empty()) return call.missing();
  const auto matches = [&](const Value& part) {
    if (part.is_undefined()) call.machine.fail_undefined(part);
    const Text* wanted = part.text();
    if (!wanted) {
      call.machine.fail(cat(call.name, ": argument must be str, not ", type_name(part)));
      return false;
    }
    const size_t size = wanted->size();
    if (size > text.size()) return false;
    return text.substr(call.name == "startswith" ? 0 : text.size() - size, size) == wanted->bytes;
  };
  if (call.args.size() > 1) return call.machine.unimplemented(cat(call.name, " with a range"));
  if (const List* list = call.args[0].list()) {
    return Value(std::any_of(list->items.begin(), list->items.end(), matches));
  }
  return Value(matches(call.args[0]));
}

Value join(const Call& call) {
  if (call.args.size() != 1) return call.missing();
  Text out;
  const std::vector<Value> items = iterate(call.machine, call.args[0]);
  for (size_t i = 0; i < items.size() && !call.machine.failed(); ++i) {
    if (!items[i].text())
      return call.machine.fail(cat("join: item ", i, ": expected str, not ", type_name(items[i])));
    if (i > 0) print(call.machine, call.self, out);
    print(call.machine, items[i], out);
  }
  return call.machine.text(std::move(out));
}

Value find(const Call& call) {
  const Text& text = *call.self.text();
  const Text* part = call.text(0, "sub");
  if (call.args.size() > 1) return call.machine.unimplemented(cat(call.name, " with a range"));
  if (call.machine.failed()) return {};
  if (!part) return call.missing();
  if (!call.machine.step(static_cast<int64_t>(text.size() / 64))) return {};
  if (call.name == "count") {
    const size_t count = part->size() ? find_all(call.machine, text.bytes, part->bytes).size()
                                      : count_chars(text.bytes) + 1;
    return Value(static_cast<int64_t>(count));
  }
  size_t hit = find_bytes(text.bytes, part->bytes, 0);
  if (call.name == "rfind" && hit != kNone) {
    if (!call.machine.step(static_cast<int64_t>(text.size() * part->size() / 64))) return {};
    hit = text.bytes.rfind(part->bytes);
  }
  if (hit == kNone)
    return call.name == "index" ? call.machine.fail("substring not found") : Value(int64_t{-1});
  return Value(static_cast<int64_t>(count_chars(std::string_view(text.bytes).substr(0, hit))));
}

Value is_class(const Call& call) {
  const std::string_view text = call.self.text()->bytes;
  bool cased = false;
  for (size_t pos = 0; pos < text.size();) {
    const size_t size = char_bytes(text, pos);
    const auto cp = static_cast<utf8proc_int32_t>(code_point(text.substr(pos, size)));
    const auto category = utf8proc_category(cp);
    const bool alpha = category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_LO;
    const bool digit = category == UTF8PROC_CATEGORY_ND;
    const bool upper = category == UTF8PROC_CATEGORY_LU, lower = category == UTF8PROC_CATEGORY_LL;
    pos += size;
    if (call.name == "isupper" || call.name == "islower") {
      if (call.name == "isupper" ? lower : upper) return Value(false);
      cased = cased || upper || lower;
      continue;
    }
    const bool good = call.name == "isspace"   ? is_space(static_cast<uint32_t>(cp))
                      : call.name == "isalpha" ? alpha
                      : call.name == "isalnum" ? alpha || digit
                                               : digit;
    if (!good) return Value(false);
    cased = true;
  }
  return Value(cased);
}

constexpr std::string_view kTextMethods[] = {
    "strip",      "lstrip",    "rstrip",    "split",   "rsplit",  "splitlines",   "replace",
    "startswith", "endswith",  "upper",     "lower",   "title",   "capitalize",   "join",
    "find",       "rfind",     "index",     "count",   "isspace", "isalpha",      "isalnum",
    "isdigit",    "isdecimal", "isnumeric", "isupper", "islower", "removeprefix", "removesuffix"};
constexpr std::string_view kDictMethods[] = {"items", "keys", "values", "get", "copy"};
constexpr std::string_view kListMethods[] = {"index", "count", "copy"};

Value text_method(const Call& call) {
  Machine& machine = call.machine;
  const Text& text = *call.self.text();
  const std::string_view name = call.name;
  if (name == "strip" || name == "lstrip" || name == "rstrip")
    return strip(call, name != "rstrip", name != "lstrip");
  if (name == "split" || name == "rsplit") return split(call, name == "rsplit");
  if (name == "splitlines") return splitlines(call);
  if (name == "replace") return replace(call);
  if (name == "startswith" || name == "endswith") return starts_or_ends(call);
  if (name == "upper") return change_case(machine, text, Letters::kUpper);
  if (name == "lower") return change_case(machine, text, Letters::kLower);
  if (name == "title") return change_case(machine, text, Letters::kTitle);
  if (name == "capitalize") return change_case(machine, text, Letters::kCapitalize);
  if (name == "join") return join(call);
  if (name == "find" || name == "rfind" || name == "index" || name == "count") return find(call);
  if (name == "removeprefix" || name == "removesuffix") {
    const Text* part = call.text(0, "");
    if (machine.failed()) return {};
    if (!part) return call.missing();
    const size_t size = part->size();
    if (size > text.size()) return call.self;
    const bool prefix = name == "removeprefix";
    if (text.bytes.compare(prefix ? 0 : text.size() - size, size, part->bytes) != 0)
      return call.self;
    return prefix ? machine.slice(text, size, text.size())
                  : machine.slice(text, 0, text.size() - size);
  }
  if (!machine.step(static_cast<int64_t>(text.size() / 16))) return {};
  return is_class(call);
}

Value dict_method(const Call& call) {
  Machine& machine = call.machine;
  const Dict& dict = *call.self.dict();
  if (call.name == "copy") return call.self;
  if (call.name == "get") {
    const Value* key = argument(call.args, {}, 0, "");
    if (!key) return call.missing();
    const Value* found = find_key(machine, dict, *key);
    if (found) return *found;
    const Value* fallback = argument(call.args, {}, 1, "");
    return fallback ? *fallback : Value(None{});
  }
  std::vector<Value> items;
  if (!machine.step(static_cast<int64_t>(dict.items.size()))) return {};
  for (const auto& [key, item] : dict.items) {
    items.push_back(call.name == "items"  ? machine.list({key, item}, true)
                    : call.name == "keys" ? key
                                          : item);
  }
  return machine.list(std::move(items));
}

Value list_method(const Call& call) {
  if (call.name == "copy") return call.self;
  if (call.args.size() != 1) return call.missing();
  int64_t count = 0;
  const auto& items = call.self.list()->items;
  for (size_t i = 0; i < items.size() && !call.machine.failed(); ++i) {
    if (!equal(call.machine, items[i], call.args[0])) continue;
    if (call.name == "index") return Value(static_cast<int64_t>(i));
    ++count;
  }
  return call.name == "count" ? Value(count) : call.machine.fail("the value is not in the list");
}

}  // namespace

const Value* argument(const std::vector<Value>& args, const Kwargs& kwargs, size_t position,
                      std::string_view name) {
  if (position < args.size()) return &args[position];
  for (const auto& [key, value] : kwargs) {
    if (key == name) return &value;
  }
  return nullptr;
}

bool has_method(const Value& self, std::string_view name) {
  const auto in = [&](const auto& names) {
    return std::find(std::begin(names), std::end(names), name) != std::end(names);
  };
  if (self.text()) return in(kTextMethods);
  if (self.dict()) return in(kDictMethods);
  if (self.list()) return in(kListMethods);
  return self.loop() && name == "cycle";
}

Value call_method(Machine& machine, const Value& self, std::string_view name,
                  const std::vector<Value>& args, const Kwargs& kwargs) {
  const Call call{machine, self, name, args, kwargs};
  if (const Loop* loop = self.loop()) {
    if (args.empty()) return machine.fail("no items for cycling given");
    return args[loop->index % args.size()];
  }
  if (self.text()) return text_method(call);
  return self.dict() ? dict_method(call) : list_method(call);
}

}  // namespace rk::text::jinja
