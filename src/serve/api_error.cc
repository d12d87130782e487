#include "serve/api_error.h"

#include "serve/json_request.h"

namespace rk::serve {
namespace {

const char* type_of(int status) {
  switch (status) {
    case 401:
      return "authentication_error";
    case 403:
      return "permission_error";
    case 404:
      return "not_found_error";
    case 408:
      return "timeout_error";
    case 429:
      return "rate_limit_error";
    case 503:
      return "unavailable_error";
    default:
      return status >= 500 ? "server_error" : "invalid_request_error";
  }
}

std::string quote_or_null(const std::string& text) {
  return text.empty() ? "null" : json_quote(text);
}

}  // namespace

ApiError api_error(const Status& status, std::string param) {
  const auto make = [&](int http, const char* code) {
    return ApiError{http, status.message(), std::move(param), code};
  };
  switch (status.code()) {
    case Code::kInvalidArgument:
      return make(400, "invalid_value");
    case Code::kUnimplemented:
      return make(400, "unsupported");
    case Code::kNotFound:
      return make(404, "not_found");
    case Code::kExhausted:
      return make(429, "overloaded");
    case Code::kUnavailable:
    case Code::kCancelled:
      return make(503, "unavailable");
    case Code::kDeadline:
      return make(504, "deadline");
    default:
      return make(500, "internal_error");
  }
}

std::string error_json(const ApiError& error) {
  return cat("{\"error\":{\"message\":", json_quote(error.message), ",\"type\":\"",
             type_of(error.status), "\",\"param\":", quote_or_null(error.param),
             ",\"code\":", quote_or_null(error.code), "}}");
}

HttpReply error_reply(const ApiError& error) {
  HttpReply reply{error.status, {{"Content-Type", "application/json"}}, error_json(error)};
  if (error.status == 429) reply.headers.emplace_back("Retry-After", "1");
  if (error.status == 503) reply.headers.emplace_back("Retry-After", "5");
  if (error.status == 401) reply.headers.emplace_back("WWW-Authenticate", "Bearer");
  return reply;
}

}  // namespace rk::serve
