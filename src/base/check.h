// RK_CHECK is for our own bugs only and aborts; RK_DCHECK vanishes in release builds. Anything from
// a file, a socket or a user is a Status instead (base/status.h).
#pragma once

#include "base/status.h"

namespace rk {
[[noreturn]] void check_failed(const char* file, int line, const char* what);
}

#define RK_CHECK(condition) \
  ((condition) ? void(0) : ::rk::check_failed(__FILE__, __LINE__, #condition))
#define RK_CHECK_OK(expr)                                                   \
  do {                                                                      \
    if (const auto& rk_checked = (expr); !rk_checked.ok()) {                \
      ::rk::check_failed(__FILE__, __LINE__, rk_checked.message().c_str()); \
    }                                                                       \
  } while (false)
#ifdef NDEBUG
#define RK_DCHECK(condition) void(0)
#else
#define RK_DCHECK(condition) RK_CHECK(condition)
#endif
