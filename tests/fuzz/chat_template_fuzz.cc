// Any bytes as a template, and as a message's content: an error or a prompt, never a crash.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "text/chat_template.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view source(reinterpret_cast<const char*>(data), size);
  const auto parsed = rk::text::ChatTemplate::parse(source);
  if (!parsed.ok()) return 0;
  rk::text::ChatTemplateOptions options;
  options.bos_token = "<s>";
  options.extra_json =
      R"({"tools": [{"name": "f", "n": 1.5}], "x": {"a": [1, null, true, "\u00e9"]}})";
  const std::vector<rk::text::ChatMessage> messages = {
      {"system", "s"}, {"user", std::string(source.substr(0, 64))}, {"assistant", " a,b "}};
  const auto rendered = parsed->render(messages, options);
  if (!rendered.ok()) return 0;
  for (const auto& piece : *rendered) {
    if (piece.text.empty()) __builtin_trap();
  }
  return 0;
}
