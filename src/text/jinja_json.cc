// JSON in and out. What comes in is untrusted; what goes out reads as Python's json.dumps writes
// it.
#include <boost/json.hpp>
#include <cmath>

#include "text/jinja_ops.h"

namespace rk::text::jinja {
namespace {

constexpr size_t kMaxJsonDepth = 64;

Value convert(Machine& machine, const boost::json::value& json) {
  if (!machine.step()) return {};
  switch (json.kind()) {
    case boost::json::kind::bool_:
      return Value(json.get_bool(), true);
    case boost::json::kind::int64:
      return Value(static_cast<int64_t>(json.get_int64()), true);
    case boost::json::kind::uint64:  // above 2^63 - 1
      return Value(static_cast<double>(json.get_uint64()), true);
    case boost::json::kind::double_:
      return Value(json.get_double(), true);
    case boost::json::kind::string:
      return machine.text(
          Text(std::string_view(json.get_string().data(), json.get_string().size()), true));
    case boost::json::kind::array: {
      std::vector<Value> items;
      for (const auto& item : json.get_array()) items.push_back(convert(machine, item));
      return machine.list(std::move(items));
    }
    case boost::json::kind::object: {
      std::vector<std::pair<Value, Value>> items;
      for (const auto& item : json.get_object()) {
        Value key =
            machine.text(Text(std::string_view(item.key().data(), item.key().size()), true));
        items.emplace_back(std::move(key), convert(machine, item.value()));
      }
      return machine.dict(std::move(items));
    }
    default:
      return Value(None{}, true);
  }
}

struct Printer {
  Machine& machine;
  std::string pad;  ///< of one level
  bool indented;
  bool ascii;
  bool sort_keys;
  Text& out;

  void put(std::string_view text, bool untrusted = false) { out.append(text, untrusted); }

  void newline(int level) {
    if (!indented) return;
    if (!machine.take(static_cast<int64_t>(pad.size()) * level + 1)) return;
    put("\n");
    for (int i = 0; i < level; ++i) put(pad);
  }

  void escape(std::string& piece, uint32_t cp) {
    static constexpr char kHex[] = "0123456789abcdef";
    if (cp >= 0x10000) {
      escape(piece, 0xD800 + ((cp - 0x10000) >> 10));
      escape(piece, 0xDC00 + ((cp - 0x10000) & 0x3FF));
      return;
    }
    piece += "\\u";
    for (int shift = 12; shift >= 0; shift -= 4) piece.push_back(kHex[cp >> shift & 15]);
  }

  void text(const Text& text) {
    if (!machine.take_text(2 * static_cast<int64_t>(text.size()))) return;
    static constexpr std::string_view kShort = "\"\\\b\f\n\r\t", kNames = "\"\\bfnrt";
    const std::string_view bytes = text.bytes;
    std::string piece;
    put("\"", text.any_untrusted());
    for (size_t pos = 0; pos < bytes.size();) {
      const size_t size = char_bytes(bytes, pos);
      const auto character = bytes.substr(pos, size);
      const uint32_t cp = code_point(character);
      piece.clear();
      if (const size_t i = size == 1 ? kShort.find(bytes[pos]) : kShort.npos; i != kShort.npos) {
        piece = {'\\', kNames[i]};
      } else if (cp < 0x20 || (ascii && cp >= 0x7F)) {
        if (cp == 0x7F) {
          piece = character;
        } else {
          escape(piece, cp);
        }
      } else {
        piece = character;
      }
      put(piece, text.any_untrusted(pos, pos + size));
      pos += size;
    }
    put("\"", text.any_untrusted());
  }

  void scalar(const Value& v) {
    if (v.is<bool>()) {
      put(std::get<bool>(v.v) ? "true" : "false", v.untrusted);
    } else if (v.is<int64_t>()) {
      put(std::to_string(v.integer()), v.untrusted);
    } else if (v.is<double>()) {
      const double d = v.real();
      put(std::isnan(d)   ? "NaN"
          : std::isinf(d) ? (d > 0 ? "Infinity" : "-Infinity")
                          : python_float(d),
          v.untrusted);
    } else if (v.is_none()) {
      put("null", v.untrusted);
    } else {
      machine.fail(cat("Object of type ", type_name(v), " is not JSON serializable"));
    }
  }

  void key(const Value& key) {
    if (key.text()) {
      text(*key.text());
    } else if (key.is_number() || key.is_none()) {
      put("\"");
      scalar(key);
      put("\"");
    } else {
      machine.fail(cat("keys must be str, int, float, bool or None, not ", type_name(key)));
    }
  }

  void list(const List& list, int level) {
    put("[");
    for (size_t i = 0; i < list.items.size() && !machine.failed(); ++i) {
      if (i > 0) put(indented ? "," : ", ");
      newline(level + 1);
      value(list.items[i], level + 1);
    }
    if (!list.items.empty()) newline(level);
    put("]");
  }

  void dict(const Dict& dict, int level) {
    std::vector<Value> order;
    if (sort_keys) {
      const Value keys = call_method(machine, machine.dict(dict.items), "keys", {}, {});
      const Value sorted = call_filter(machine, "sort", {keys}, {{"case_sensitive", Value(true)}});
      if (!machine.failed()) order = sorted.list()->items;
    }
    put("{");
    for (size_t i = 0; i < dict.items.size() && !machine.failed(); ++i) {
      const Value& name = sort_keys ? order[i] : dict.items[i].first;
      if (i > 0) put(indented ? "," : ", ");
      newline(level + 1);
      key(name);
      put(": ");
      const Value* item = sort_keys ? find_key(machine, dict, name) : &dict.items[i].second;
      if (item) value(*item, level + 1);
    }
    if (!dict.items.empty()) newline(level);
    put("}");
  }

  void value(const Value& v, int level) {
    if (!machine.step() || !machine.take(16)) return;
    if (static_cast<int64_t>(out.size()) > machine.limits.text_bytes) {
      machine.fail(Code::kExhausted,
                   cat("a text of ", out.size(), " bytes, limit ", machine.limits.text_bytes));
    } else if (v.text()) {
      text(*v.text());
    } else if (v.list()) {
      list(*v.list(), level);
    } else if (v.dict()) {
      dict(*v.dict(), level);
    } else {
      scalar(v);
    }
  }
};

}  // namespace

Value value_from_json(Machine& machine, std::string_view json, std::string_view what) {
  boost::json::parse_options options;
  options.max_depth = kMaxJsonDepth;
  boost::system::error_code code;
  boost::json::value parsed;
  try {
    parsed =
        boost::json::parse(boost::json::string_view(json.data(), json.size()), code, {}, options);
  } catch (const std::exception& error) {
    return machine.fail(cat(what, ": ", error.what()));
  }
  if (code) return machine.fail(cat(what, ": not valid JSON: ", code.message()));
  return convert(machine, parsed);
}

void print_json(Machine& machine, const Value& value, const Value* indent, bool ascii,
                bool sort_keys, Text& out) {
  std::string pad;
  if (indent) {
    if (indent->text()) {
      pad = indent->text()->bytes.substr(0, 64);
    } else if (indent->is_integral() && indent->integer() <= 64) {
      pad.assign(static_cast<size_t>(std::max<int64_t>(indent->integer(), 0)), ' ');
    } else {
      machine.fail("tojson: indent must be a text or a number up to 64");
      return;
    }
  }
  Printer{machine, pad, indent != nullptr, ascii, sort_keys, out}.value(value, 0);
}

}  // namespace rk::text::jinja
