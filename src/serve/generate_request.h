// The body of /v1/chat/completions and /v1/completions, checked and turned into an engine request.
// Field by field with its range in docs/api-server.md. Thread-safe: no state.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "engine/request.h"
#include "serve/api_error.h"
#include "serve/company.h"
#include "serve/completion.h"
#include "serve/json_request.h"
#include "serve/prompt.h"

namespace rk::serve {

/// The model that is served; everything outlives the server.
struct ModelInfo {
  std::string id;
  int64_t context_tokens = 0;
  int64_t created = 0;  ///< unix seconds
  Company company;      ///< of requests that name none
  Company neutral;      ///< of requests that ask for it
};

struct ModelView {
  const ModelInfo& info;
  const text::Tokenizer& tokenizer;
  const text::ChatTemplate* chat = nullptr;  ///< null: the model has none
};

struct GenerateRequest {
  bool chat = false, stream = false, include_usage = false;
  std::string echo;  ///< text that precedes the answer (`echo` of completions)
  std::string cache_salt;
  int num_choices = 1;  ///< answers to the same prompt, with seeds one apart
  engine::Request engine;
  CompletionOptions completion;
};

/// False with `error` filled: 400, or 404 for another model.
bool parse_chat(std::string_view body, const ModelView& model, GenerateRequest& out,
                ApiError& error);
bool parse_completion(std::string_view body, const ModelView& model, GenerateRequest& out,
                      ApiError& error);

/// `messages` and `documents` of a chat body.
void read_messages(JsonFields& fields, std::vector<text::ChatMessage>& messages,
                   std::vector<Document>& documents);
void read_documents(JsonFields& fields, std::vector<Document>& documents);
/// Checks `model` against the one served; empty and absent are it.
bool check_model(JsonFields& fields, const ModelInfo& info, ApiError& error);

}  // namespace rk::serve
