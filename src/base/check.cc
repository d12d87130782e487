#include "base/check.h"

#include <cstdio>
#include <cstdlib>

namespace rk {
void check_failed(const char* file, int line, const char* what) {
  std::fprintf(stderr, "redknot: bug at %s:%d: %s\n", file, line, what);
  std::abort();
}
}  // namespace rk
