// `messages` and `documents`: what a conversation may hold, and where documents are taken from.
#include <boost/json.hpp>

#include "serve/generate_request.h"

namespace rk::serve {
namespace json = boost::json;
namespace {

constexpr size_t kMaxDocuments = 4096;
constexpr size_t kMaxText = size_t{1} << 30;  // the body's limit comes first
constexpr size_t kMaxName = 64;

// {"text"|"content": "...", "title": "..."} at `where`, or a plain string.
void read_document(const json::value& value, const std::string& where, JsonFields& fields,
                   std::vector<Document>& documents) {
  Document document;
  if (value.is_string()) {
    document.text = std::string(value.get_string());
  } else if (value.is_object()) {
    JsonFields inner(value.get_object(), where + ".");
    inner.string("title", 1024, document.title);
    inner.string(inner.has("text") ? "text" : "content", kMaxText, document.text);
    if (!inner.ok()) return fields.adopt(inner);
    if (!inner.has("text") && !inner.has("content")) {
      return fields.fail(where, inner.has("id")
                                    ? "stored documents are not supported yet; send `text`"
                                    : "a document needs `text`");
    }
  } else {
    return fields.fail(where, cat(json_kind(value), ", a document is a string or an object"));
  }
  if (document.text.find_first_not_of(" \t\r\n\f\v") == std::string::npos) {
    return fields.fail(where, "the document's text is empty");
  }
  if (documents.size() >= kMaxDocuments) {
    return fields.fail(where, cat("document number ", documents.size() + 1,
                                  " of a request, at most ", kMaxDocuments, " are possible"));
  }
  documents.push_back(std::move(document));
}

void read_part(const json::value& value, const std::string& where, bool user, JsonFields& fields,
               std::string& text, std::vector<Document>& documents) {
  if (!value.is_object()) return fields.fail(where, cat(json_kind(value), ", an object is wanted"));
  JsonFields part(value.get_object(), where + ".");
  std::string type, part_text;
  part.string("type", kMaxName, type);
  if (type == "text") {
    if (!part.has("text")) part.fail("text", "missing");
    part.string("text", kMaxText, part_text);
    text += part_text;
  } else if (type == "document" && user) {
    if (const json::value* document = part.find("document")) {
      std::vector<Document> one;
      read_document(*document, where + ".document", fields, one);
      if (one.empty()) return;
      if (one[0].title.empty()) part.string("title", 1024, one[0].title);
      documents.push_back(std::move(one[0]));
    } else {
      part.fail("document", "missing");
    }
  } else if (part.ok()) {
    part.fail("type", cat("\"", type, "\": only \"text\", and \"document\" from users, are known"));
  }
  fields.adopt(part);
}

void read_content(JsonFields& message, const std::string& where, const std::string& role,
                  JsonFields& fields, std::string& text, std::vector<Document>& documents) {
  const json::value* content = message.find("content");
  if (content == nullptr) {
    if (role != "assistant") fields.fail(where + ".content", "missing");
  } else if (content->is_string()) {
    text = std::string(content->get_string());
  } else if (content->is_array()) {
    const json::array& parts = content->get_array();
    for (size_t i = 0; i < parts.size() && fields.ok(); ++i) {
      read_part(parts[i], cat(where, ".content[", i, "]"), role == "user", fields, text, documents);
    }
  } else {
    fields.fail(where + ".content", cat(json_kind(*content), ", a string or an array is wanted"));
  }
}

}  // namespace

void read_documents(JsonFields& fields, std::vector<Document>& documents) {
  const json::value* value = fields.find("documents");
  if (value == nullptr || !fields.ok()) return;
  if (!value->is_array()) {
    return fields.fail("documents", cat(json_kind(*value), ", an array is wanted"));
  }
  const json::array& items = value->get_array();
  if (items.size() > kMaxDocuments) {
    return fields.fail("documents",
                       cat(items.size(), " documents, at most ", kMaxDocuments, " are possible"));
  }
  for (size_t i = 0; i < items.size() && fields.ok(); ++i) {
    read_document(items[i], cat("documents[", i, "]"), fields, documents);
  }
}

void read_messages(JsonFields& fields, std::vector<text::ChatMessage>& messages,
                   std::vector<Document>& documents) {
  read_documents(fields, documents);
  const json::value* value = fields.find("messages");
  if (!fields.ok()) return;
  if (value == nullptr) return fields.fail("messages", "missing");
  if (!value->is_array()) {
    return fields.fail("messages", cat(json_kind(*value), ", an array is wanted"));
  }
  const json::array& items = value->get_array();
  if (items.empty()) return fields.fail("messages", "empty, at least one message is wanted");
  for (size_t i = 0; i < items.size() && fields.ok(); ++i) {
    const std::string where = cat("messages[", i, "]");
    if (!items[i].is_object()) {
      return fields.fail(where, cat(json_kind(items[i]), ", an object is wanted"));
    }
    JsonFields message(items[i].get_object(), where + ".");
    text::ChatMessage out;
    if (!message.has("role")) message.fail("role", "missing");
    message.string("role", kMaxName, out.role);
    if (!message.ok()) return fields.adopt(message);
    if (out.role == "developer") out.role = "system";
    if (out.role == "tool" || out.role == "function" || message.has("tool_calls")) {
      return fields.fail(where, "tools are not supported yet");
    }
    if (out.role != "system" && out.role != "user" && out.role != "assistant") {
      return fields.fail(where + ".role", cat(json_quote(out.role),
                                              " is none of system, developer, "
                                              "user, assistant"));
    }
    read_content(message, where, out.role, fields, out.content, documents);
    messages.push_back(std::move(out));
  }
}

}  // namespace rk::serve
