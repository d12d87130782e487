// Prompts as the engine wants them: a conversation and its documents become spans of token ids.
//
// Documents stand before the question in the first user turn. The chat template is rendered with a
// mark at that place: what precedes the mark is the lead, each document is a segment of its own,
// and what follows is one fresh span. Every span is tokenised alone, so a document has the same ids
// in every prompt. A document's span is
//
//     Document: <title>\n        (without a title this line is missing)
//     <text>\n\n
//
// Wrapper and ids are part of a stored row's identity. Immutable inputs, no state.
#pragma once

#include <string>
#include <vector>

#include "base/status.h"
#include "engine/request.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace rk::serve {

struct Document {
  std::string title;  ///< may be empty
  std::string text;   ///< never a special token, whatever it contains
};

/// The text of a document's span.
std::string wrap_document(const Document& document);

/// Spans of a conversation. `options.bos_token` is added once, by the template or else where the
/// tokenizer adds one itself.
/// Errors: kInvalidArgument for an empty document, documents without a user message, and the
/// template's own complaints.
Result<std::vector<engine::PromptSpan>> chat_prompt(const text::Tokenizer& tokenizer,
                                                    const text::ChatTemplate& chat,
                                                    const std::vector<text::ChatMessage>& messages,
                                                    const std::vector<Document>& documents,
                                                    const text::ChatTemplateOptions& options);

/// Spans of plain text behind documents, for models without a chat template: BOS if the tokenizer
/// adds one, the documents, the text. Without documents one span.
Result<std::vector<engine::PromptSpan>> plain_prompt(const text::Tokenizer& tokenizer,
                                                     std::string_view text,
                                                     const std::vector<Document>& documents);

/// Template options with the tokenizer's BOS and EOS literals and the time given.
text::ChatTemplateOptions chat_options(const text::Tokenizer& tokenizer, int64_t unix_time);

}  // namespace rk::serve
