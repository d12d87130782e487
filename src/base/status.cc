#include "base/status.h"

#include <cstdio>
#include <cstdlib>

namespace rk {

const char* code_name(Code code) {
  switch (code) {
    case Code::kOk:
      return "ok";
    case Code::kInvalidArgument:
      return "invalid_argument";
    case Code::kNotFound:
      return "not_found";
    case Code::kExhausted:
      return "exhausted";
    case Code::kUnavailable:
      return "unavailable";
    case Code::kDeadline:
      return "deadline";
    case Code::kCancelled:
      return "cancelled";
    case Code::kDataLoss:
      return "data_loss";
    case Code::kUnimplemented:
      return "unimplemented";
    case Code::kInternal:
      return "internal";
  }
  return "unknown";
}

void result_without_value(const Status& status) {
  std::fprintf(stderr, "redknot: bug: value of a failed Result taken: %s: %s\n",
               code_name(status.code()), status.message().c_str());
  std::abort();
}

}  // namespace rk
