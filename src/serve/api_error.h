// Errors in the shape that OpenAI's clients read: {"error": {"message", "type", "param", "code"}}.
#pragma once

#include <string>

#include "base/status.h"
#include "serve/http.h"

namespace rk::serve {

struct ApiError {
  int status = 500;
  std::string message;
  std::string param, code;  ///< null in the answer when empty
};

/// 400, 404, 429, 503, 504 or 500 by the status's code.
ApiError api_error(const Status& status, std::string param = "");
/// {"error": {...}}; the type follows from the HTTP status.
std::string error_json(const ApiError& error);
/// With Retry-After for 429 and 503, and WWW-Authenticate for 401.
HttpReply error_reply(const ApiError& error);

}  // namespace rk::serve
