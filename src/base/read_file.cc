#include "base/read_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <vector>

namespace rk {
namespace {

Status failure(const std::string& path) {
  if (errno == ENOENT || errno == ENOTDIR) return not_found(path, ": no such file");
  return unavailable(path, ": cannot be read: ", std::strerror(errno));
}

struct Descriptor {
  int fd;
  ~Descriptor() {
    if (fd >= 0) close(fd);
  }
};

}  // namespace

Result<std::string> read_file(const std::string& path, size_t max_bytes) {
  const Descriptor file{open(path.c_str(), O_RDONLY | O_CLOEXEC)};
  if (file.fd < 0) return failure(path);
  std::string text;
  std::vector<char> buffer(size_t{1} << 16);
  for (;;) {
    const ssize_t got = read(file.fd, buffer.data(), buffer.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return failure(path);
    if (got == 0) return text;
    text.append(buffer.data(), static_cast<size_t>(got));
    if (text.size() > max_bytes) {
      return invalid_argument(path, ": ", text.size(), " bytes and more, at most ", max_bytes);
    }
  }
}

}  // namespace rk
