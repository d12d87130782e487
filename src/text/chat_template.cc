#include "text/chat_template.h"

#include <algorithm>
#include <iterator>

#include "text/jinja_ast.h"
#include "text/jinja_eval.h"
#include "text/jinja_ops.h"

namespace rk::text {
namespace {

using jinja::Machine;
using jinja::Scope;
using jinja::Text;
using jinja::Value;

constexpr size_t kMaxSourceBytes = size_t{1} << 20;
constexpr std::string_view kTrustedRoles[] = {"system", "user", "assistant", "tool"};
constexpr std::string_view kReserved[] = {"messages",
                                          "add_generation_prompt",
                                          "bos_token",
                                          "eos_token",
                                          "raise_exception",
                                          "strftime_now",
                                          "range",
                                          "namespace",
                                          "dict",
                                          "loop",
                                          "caller"};

template <class Names>
bool is_in(const Names& names, std::string_view name) {
  return std::find(std::begin(names), std::end(names), name) != std::end(names);
}

/// The fields of a JSON object; nothing for an empty text or after an error.
std::vector<std::pair<Value, Value>> fields_of(Machine& machine, std::string_view json,
                                               const std::string& what) {
  if (json.empty()) return {};
  const Value value = jinja::value_from_json(machine, json, what);
  if (machine.failed()) return {};
  if (!value.dict()) {
    machine.fail(cat(what, ": an object is wanted, got a ", jinja::type_name(value)));
    return {};
  }
  return value.dict()->items;
}

Value make_message(Machine& machine, const ChatMessage& message, size_t index) {
  std::vector<std::pair<Value, Value>> fields;
  const bool trusted_role = is_in(kTrustedRoles, message.role);
  fields.emplace_back(machine.text("role"), machine.text(Text(message.role, !trusted_role)));
  fields.emplace_back(machine.text("content"), machine.text(Text(message.content, true)));
  if (message.extra_json.empty()) return machine.dict(std::move(fields));
  for (auto& [key, value] :
       fields_of(machine, message.extra_json, cat("message ", index, ": extra_json"))) {
    const std::string& name = key.text()->bytes;
    if (name == "role")
      return machine.fail(cat("message ", index, ": extra_json: 'role' is reserved"));
    if (name == "content") {
      fields[1].second = std::move(value);
    } else {
      fields.emplace_back(std::move(key), std::move(value));
    }
  }
  return machine.dict(std::move(fields));
}

std::vector<TextPiece> to_pieces(const Text& text) {
  std::vector<TextPiece> pieces;
  size_t pos = 0;
  for (const auto& run : text.untrusted) {
    if (run.begin > pos) pieces.push_back({text.bytes.substr(pos, run.begin - pos), true});
    pieces.push_back({text.bytes.substr(run.begin, run.end - run.begin), false});
    pos = run.end;
  }
  if (pos < text.size()) pieces.push_back({text.bytes.substr(pos), true});
  return pieces;
}

}  // namespace

struct ChatTemplate::Program {
  std::unique_ptr<jinja::Template> root;
};

Result<ChatTemplate> ChatTemplate::parse(std::string_view source) {
  if (source.size() > kMaxSourceBytes) {
    return invalid_argument("chat template: ", source.size(), " bytes, limit ", kMaxSourceBytes);
  }
  RK_TRY(auto root, jinja::parse_template(source));
  ChatTemplate out;
  out.program_ = std::make_shared<const Program>(Program{std::move(root)});
  return out;
}

Result<std::vector<TextPiece>> ChatTemplate::render(const std::vector<ChatMessage>& messages,
                                                    const ChatTemplateOptions& options) const {
  const jinja::Template& root = *program_->root;
  Machine machine;
  machine.unix_time = options.unix_time;
  int64_t input_bytes = static_cast<int64_t>(options.extra_json.size());
  for (const auto& m : messages)
    input_bytes += static_cast<int64_t>(m.content.size() + m.extra_json.size() + 1024);
  machine.limits.bytes += 32 * input_bytes;
  machine.limits.text_bytes += 8 * input_bytes;

  Scope globals;
  const auto define = [&](std::string_view name, Value value) {
    if (const int id = root.find_name(name); id >= 0) globals.set(id, std::move(value));
  };
  std::vector<Value> list;
  for (size_t i = 0; i < messages.size() && !machine.failed(); ++i) {
    list.push_back(make_message(machine, messages[i], i));
  }
  define("messages", machine.list(std::move(list)));
  define("add_generation_prompt", Value(options.add_generation_prompt));
  define("tools", Value(jinja::None{}));
  define("documents", Value(jinja::None{}));
  if (!options.bos_token.empty()) define("bos_token", machine.text(options.bos_token));
  if (!options.eos_token.empty()) define("eos_token", machine.text(options.eos_token));
  for (auto& [key, value] : fields_of(machine, options.extra_json, "extra_json")) {
    const std::string& name = key.text()->bytes;
    if (is_in(kReserved, name)) machine.fail(cat("extra_json: '", name, "' is reserved"));
    define(name, std::move(value));
  }
  if (machine.failed()) return machine.status();
  const Text text = jinja::Evaluator(root, machine).run(globals);
  if (machine.failed()) return machine.status();
  return to_pieces(text);
}

}  // namespace rk::text
