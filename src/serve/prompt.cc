#include "serve/prompt.h"

#include <algorithm>

namespace rk::serve {
namespace {

using engine::PromptSpan;
using text::TextPiece;
using Pieces = std::vector<TextPiece>;

// What the tokenizer itself puts before a text: BOS or nothing.
std::vector<int32_t> own_start(const text::Tokenizer& tokenizer) {
  std::vector<int32_t> ids = tokenizer.encode(std::string_view(), false, true);
  if (ids.empty() || tokenizer.bos() < 0 || ids.front() != tokenizer.bos()) return {};
  return {tokenizer.bos()};
}

bool begins_with_bos(const text::Tokenizer& tokenizer, const Pieces& pieces) {
  if (tokenizer.bos() < 0) return false;
  const std::string bos = tokenizer.token_bytes(tokenizer.bos());
  const auto first = std::find_if(pieces.begin(), pieces.end(),
                                  [](const TextPiece& piece) { return !piece.text.empty(); });
  return first != pieces.end() && first->trusted && !bos.empty() && first->text.starts_with(bos);
}

std::vector<int32_t> first_span(const text::Tokenizer& tokenizer, const Pieces& pieces) {
  std::vector<int32_t> ids;
  if (!begins_with_bos(tokenizer, pieces)) ids = own_start(tokenizer);
  const std::vector<int32_t> rest = tokenizer.encode(pieces, false);
  ids.insert(ids.end(), rest.begin(), rest.end());
  return ids;
}

// Control characters that no filter trims, and that no message contains.
std::string find_mark(const std::vector<text::ChatMessage>& messages) {
  for (int i = 0;; ++i) {
    const std::string mark = cat("\x02", "documents", i, "\x03");
    const bool used = std::any_of(messages.begin(), messages.end(), [&](const auto& message) {
      return message.content.find(mark) != std::string::npos;
    });
    if (!used) return mark;
  }
}

// Splits pieces at byte `at` of their joined text and drops the next `drop` bytes.
std::pair<Pieces, Pieces> split(const Pieces& pieces, size_t at, size_t drop) {
  std::pair<Pieces, Pieces> out;
  size_t begin = 0;
  for (const TextPiece& piece : pieces) {
    const size_t size = piece.text.size();
    const auto local = [&](size_t byte) { return std::clamp(byte, begin, begin + size) - begin; };
    const size_t head = local(at), tail = local(at + drop);
    if (head > 0) out.first.push_back({piece.text.substr(0, head), piece.trusted});
    if (tail < size) out.second.push_back({piece.text.substr(tail), piece.trusted});
    begin += size;
  }
  return out;
}

Status append_documents(const text::Tokenizer& tokenizer, const std::vector<Document>& documents,
                        std::vector<PromptSpan>& spans) {
  for (size_t i = 0; i < documents.size(); ++i) {
    if (documents[i].text.find_first_not_of(" \t\r\n\f\v") == std::string::npos) {
      return invalid_argument("documents[", i, "]: the text is empty");
    }
    spans.push_back({tokenizer.encode(wrap_document(documents[i]), false, false), true});
  }
  return {};
}

}  // namespace

std::string wrap_document(const Document& document) {
  if (document.title.empty()) return cat(document.text, "\n\n");
  return cat("Document: ", document.title, "\n", document.text, "\n\n");
}

Result<std::vector<PromptSpan>> chat_prompt(const text::Tokenizer& tokenizer,
                                            const text::ChatTemplate& chat,
                                            const std::vector<text::ChatMessage>& messages,
                                            const std::vector<Document>& documents,
                                            const text::ChatTemplateOptions& options) {
  std::vector<PromptSpan> spans;
  if (documents.empty()) {
    RK_TRY(const Pieces pieces, chat.render(messages, options));
    spans.push_back({first_span(tokenizer, pieces), false});
    return spans;
  }
  std::vector<text::ChatMessage> marked = messages;
  const auto user = std::find_if(marked.begin(), marked.end(),
                                 [](const auto& message) { return message.role == "user"; });
  if (user == marked.end()) {
    return invalid_argument("documents: they stand in the first user message, and there is none");
  }
  const std::string mark = find_mark(messages);
  user->content.insert(0, mark);
  RK_TRY(const Pieces pieces, chat.render(marked, options));
  std::string whole;
  for (const TextPiece& piece : pieces) whole += piece.text;
  const size_t at = whole.find(mark);
  if (at == std::string::npos || whole.find(mark, at + 1) != std::string::npos) {
    return invalid_argument("documents: the chat template writes the first user message ",
                            at == std::string::npos ? "nowhere" : "more than once");
  }
  const auto [lead, rest] = split(pieces, at, mark.size());
  spans.push_back({first_span(tokenizer, lead), false});
  RK_RETURN_IF_ERROR(append_documents(tokenizer, documents, spans));
  spans.push_back({tokenizer.encode(rest, false), false});
  return spans;
}

Result<std::vector<PromptSpan>> plain_prompt(const text::Tokenizer& tokenizer,
                                             std::string_view text,
                                             const std::vector<Document>& documents) {
  std::vector<PromptSpan> spans;
  const Pieces question = {{std::string(text), false}};
  if (documents.empty()) {
    spans.push_back({first_span(tokenizer, question), false});
    return spans;
  }
  spans.push_back({own_start(tokenizer), false});
  RK_RETURN_IF_ERROR(append_documents(tokenizer, documents, spans));
  spans.push_back({tokenizer.encode(question, false), false});
  return spans;
}

text::ChatTemplateOptions chat_options(const text::Tokenizer& tokenizer, int64_t unix_time) {
  text::ChatTemplateOptions options;
  if (tokenizer.bos() >= 0) options.bos_token = tokenizer.token_bytes(tokenizer.bos());
  const std::vector<int32_t> eos = tokenizer.eos();
  if (!eos.empty()) options.eos_token = tokenizer.token_bytes(eos.front());
  options.unix_time = unix_time;
  return options;
}

}  // namespace rk::serve
