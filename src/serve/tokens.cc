// /tokenize and /detokenize, and random ids.
#include <boost/json.hpp>
#include <random>

#include "serve/answer.h"
#include "serve/openai.h"

namespace rk::serve {
namespace json = boost::json;
namespace {

// A body's fields, its model checked; false with `error` filled.
bool open_body(const Result<JsonBody>& body, ApiError& error) {
  if (body.ok()) return true;
  error = {400, body.status().message(), "", "invalid_json"};
  return false;
}

ApiError field_error(const JsonFields& fields) {
  return {400, fields.status().message(), fields.param(), "invalid_value"};
}

}  // namespace

// {"prompt": text} or {"messages": [...]}, "add_special_tokens" (default true, text only),
// "parse_special" (default false) -> {"tokens", "count", "max_model_len"}.
void OpenAi::tokenize(HttpRequest& request, std::shared_ptr<Responder> responder) {
  const char* route = "/tokenize";
  ApiError error;
  const Result<JsonBody> body = JsonBody::parse(request.body);
  if (!open_body(body, error)) return responder->send(refuse(error, route, request));
  JsonFields fields(body->object());
  if (!check_model(fields, model_.info, error))
    return responder->send(refuse(error, route, request));
  std::vector<int32_t> tokens;
  if (fields.has("messages")) {
    std::vector<text::ChatMessage> messages;
    std::vector<Document> documents;
    read_messages(fields, messages, documents);
    if (model_.chat == nullptr) fields.fail("messages", "this model has no chat template");
    if (!fields.ok()) return responder->send(refuse(field_error(fields), route, request));
    const auto spans = chat_prompt(model_.tokenizer, *model_.chat, messages, documents,
                                   chat_options(model_.tokenizer, model_.info.created));
    if (!spans.ok()) {
      return responder->send(refuse(api_error(spans.status(), "messages"), route, request));
    }
    for (const engine::PromptSpan& span : *spans) {
      tokens.insert(tokens.end(), span.tokens.begin(), span.tokens.end());
    }
  } else {
    const char* name = fields.has("content") && !fields.has("prompt") ? "content" : "prompt";
    std::string text;
    bool add_special = true, parse_special = false;
    if (!fields.has(name)) fields.fail(name, "missing");
    fields.string(name, size_t{1} << 30, text);
    fields.boolean("add_special_tokens", add_special);
    fields.boolean("parse_special", parse_special);
    if (!fields.ok()) return responder->send(refuse(field_error(fields), route, request));
    tokens = model_.tokenizer.encode(text, parse_special, add_special);
  }
  json::object out{{"count", tokens.size()}, {"max_model_len", model_.info.context_tokens}};
  out["tokens"] = json::array(tokens.begin(), tokens.end());
  metrics_->answered(route, 200, "");
  responder->send(
      {200, common_headers("application/json", request_id(request)), json::serialize(out)});
}

// {"tokens": [ids]} -> {"prompt": text}; special tokens are kept as their literals.
void OpenAi::detokenize(HttpRequest& request, std::shared_ptr<Responder> responder) {
  const char* route = "/detokenize";
  ApiError error;
  const Result<JsonBody> body = JsonBody::parse(request.body);
  if (!open_body(body, error)) return responder->send(refuse(error, route, request));
  JsonFields fields(body->object());
  if (!check_model(fields, model_.info, error))
    return responder->send(refuse(error, route, request));
  const json::value* value = fields.find("tokens");
  std::vector<int32_t> tokens;
  if (value == nullptr || !value->is_array()) {
    fields.fail("tokens", "an array of token ids is wanted");
  } else {
    for (const json::value& item : value->get_array()) {
      const int64_t* id = item.if_int64();
      if (id == nullptr || *id < 0 || *id >= model_.tokenizer.vocab_size()) {
        fields.fail("tokens", cat(item.is_number() ? json::serialize(item) : json_kind(item),
                                  " is no token id in 0..", model_.tokenizer.vocab_size() - 1));
        break;
      }
      tokens.push_back(static_cast<int32_t>(*id));
    }
  }
  if (!fields.ok()) return responder->send(refuse(field_error(fields), route, request));
  const std::string text = model_.tokenizer.decode(tokens, false);
  metrics_->answered(route, 200, "");
  responder->send({200, common_headers("application/json", request_id(request)),
                   cat("{\"prompt\":", json_quote(text), "}")});
}

std::string random_id(const char* prefix) {
  static thread_local std::mt19937_64 random{std::random_device{}()};
  constexpr std::string_view kLetters = "abcdefghijklmnopqrstuvwxyz0123456789";
  std::string out = prefix;
  for (int i = 0; i < 24; ++i) out += kLetters[random() % kLetters.size()];
  return out;
}

}  // namespace rk::serve
