// Chat templates: an interpreter for the subset of Jinja that chat templates use, with bounds on
// steps, output size and nesting instead of trust. Renders as jinja2's
// ImmutableSandboxedEnvironment with trim_blocks and lstrip_blocks does for Hugging Face templates.
// Immutable, thread-safe.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "text/tokenizer.h"

namespace rk::text {

struct ChatMessage {
  std::string role;
  std::string content;
  /// Object of further fields (tool_calls, name, reasoning_content), may be empty. A "content" in
  /// it (null, a list of parts) takes the place of `content`.
  std::string extra_json = {};
};

struct ChatTemplateOptions {
  std::string bos_token, eos_token;  ///< undefined in the template where empty
  bool add_generation_prompt = true;
  std::string
      extra_json;  ///< object of further variables ("enable_thinking", "tools"); may be empty
  int64_t unix_time = 0;  ///< what strftime_now sees, in UTC
};

class ChatTemplate {
 public:
  /// Errors: kInvalidArgument with line and reason (kUnimplemented for Jinja outside the subset).
  static Result<ChatTemplate> parse(std::string_view source);

  /// The rendered prompt in pieces: bytes that came from message contents (or extra_json) are
  /// untrusted, everything the template wrote is trusted; through filters, slices and joins.
  /// Errors: kInvalidArgument with the template's own raise_exception text, or the line of a
  /// run-time error; kExhausted when a bound is hit.
  Result<std::vector<TextPiece>> render(const std::vector<ChatMessage>& messages,
                                        const ChatTemplateOptions& options) const;

 private:
  struct Program;
  std::shared_ptr<const Program> program_;
};

/// The template of a model (GGUF metadata, tokenizer_config.json or chat_template.jinja), or "".
Result<std::string> find_chat_template(const std::string& model_path);

}  // namespace rk::text
