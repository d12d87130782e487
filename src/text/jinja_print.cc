// Truth and printing of values.
#include <utf8proc.h>

#include <charconv>
#include <cmath>

#include "text/jinja_ops.h"

namespace rk::text::jinja {
namespace {

void print_hex_escape(std::string& out, uint32_t cp) {
  static constexpr char kDigits[] = "0123456789abcdef";
  const int digits = cp < 0x100 ? 2 : cp < 0x10000 ? 4 : 8;
  out += digits == 2 ? "\\x" : digits == 4 ? "\\u" : "\\U";
  for (int i = digits - 1; i >= 0; --i) out.push_back(kDigits[cp >> (4 * i) & 15]);
}

bool is_printable(uint32_t cp) {
  if (cp < 0x80) return cp >= 0x20 && cp != 0x7F;
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(cp))) {
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
    case UTF8PROC_CATEGORY_ZS:
      return false;
    default:
      return true;
  }
}

void repr_text(const Text& text, Text& out) {
  const std::string_view bytes = text.bytes;
  const bool single = bytes.find('\'') != bytes.npos && bytes.find('"') == bytes.npos;
  const char quote = single ? '"' : '\'';
  out.append(std::string_view(&quote, 1), false);
  std::string piece;
  for (size_t pos = 0; pos < bytes.size();) {
    const size_t size = char_bytes(bytes, pos);
    const uint32_t cp = code_point(bytes.substr(pos, size));
    piece.clear();
    if (cp == static_cast<uint32_t>(quote) || cp == '\\') {
      piece = {'\\', static_cast<char>(cp)};
    } else if (cp == '\n' || cp == '\r' || cp == '\t') {
      piece = cp == '\n' ? "\\n" : cp == '\r' ? "\\r" : "\\t";
    } else if (is_printable(cp)) {
      piece = bytes.substr(pos, size);
    } else {
      print_hex_escape(piece, cp);
    }
    out.append(piece, text.any_untrusted(pos, pos + size));
    pos += size;
  }
  out.append(std::string_view(&quote, 1), false);
}

void repr_items(Machine& machine, const List& list, Text& out) {
  out.append(list.tuple ? "(" : "[", false);
  for (size_t i = 0; i < list.items.size() && machine.step(); ++i) {
    if (i > 0) out.append(", ", false);
    print_repr(machine, list.items[i], out);
  }
  if (list.tuple && list.items.size() == 1) out.append(",", false);
  out.append(list.tuple ? ")" : "]", false);
}

void repr_dict(Machine& machine, const Dict& dict, Text& out) {
  out.append("{", false);
  for (size_t i = 0; i < dict.items.size() && machine.step(); ++i) {
    if (i > 0) out.append(", ", false);
    print_repr(machine, dict.items[i].first, out);
    out.append(": ", false);
    print_repr(machine, dict.items[i].second, out);
  }
  out.append("}", false);
}

}  // namespace

bool truthy(const Value& value) {
  if (value.is_integral()) return value.integer() != 0;
  if (value.is<double>()) return value.real() != 0;
  if (const auto size = length(value)) return *size > 0;
  return !value.is_undefined() && !value.is_none();
}

std::string python_float(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  char buffer[64];
  const auto end =
      std::to_chars(buffer, buffer + sizeof buffer, value, std::chars_format::scientific).ptr;
  std::string digits(buffer, end);
  const size_t e = digits.find('e');
  const int exponent = std::stoi(digits.substr(e + 1));
  if (exponent < -4 || exponent >= 16) return digits;  // "1e+16", "1.5e-05" as Python writes them
  const auto fixed =
      std::to_chars(buffer, buffer + sizeof buffer, value, std::chars_format::fixed).ptr;
  std::string out(buffer, fixed);
  if (out.find('.') == std::string::npos) out += ".0";
  return out;
}

void print(Machine& machine, const Value& value, Text& out) {
  if (const Text* text = value.text()) {
    if (machine.take(static_cast<int64_t>(text->size()))) out.append(*text);
  } else if (!value.is_undefined()) {
    print_repr(machine, value, out);
  }
  if (static_cast<int64_t>(out.size()) > machine.limits.text_bytes) {
    machine.fail(Code::kExhausted,
                 cat("a text of ", out.size(), " bytes, limit ", machine.limits.text_bytes));
  }
}

void print_repr(Machine& machine, const Value& value, Text& out) {
  if (machine.failed()) return;
  if (const Text* text = value.text()) {
    if (machine.take_text(static_cast<int64_t>(text->size()))) repr_text(*text, out);
  } else if (const List* list = value.list()) {
    repr_items(machine, *list, out);
  } else if (const Dict* dict = value.dict()) {
    repr_dict(machine, *dict, out);
  } else if (value.is<bool>()) {
    out.append(std::get<bool>(value.v) ? "True" : "False", value.untrusted);
  } else if (value.is<int64_t>()) {
    out.append(std::to_string(std::get<int64_t>(value.v)), value.untrusted);
  } else if (value.is<double>()) {
    out.append(python_float(std::get<double>(value.v)), value.untrusted);
  } else if (value.is_none()) {
    out.append("None", false);
  } else if (value.is_undefined()) {
    out.append("Undefined", false);
  } else {
    machine.unimplemented(cat("printing a ", type_name(value)));
  }
  if (static_cast<int64_t>(out.size()) > machine.limits.text_bytes) {
    machine.fail(Code::kExhausted,
                 cat("a text of ", out.size(), " bytes, limit ", machine.limits.text_bytes));
  }
}

TextPtr to_text(Machine& machine, const Value& value) {
  if (const auto* text = std::get_if<TextPtr>(&value.v)) return *text;
  auto out = std::make_shared<Text>();
  print(machine, value, *out);
  return out;
}

}  // namespace rk::text::jinja
