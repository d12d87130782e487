#include "tensor/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace rk {

Result<MappedFile> MappedFile::open(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) {
    const int why = errno;
    if (why == ENOENT || why == ENOTDIR) return not_found(path, ": no such file");
    return unavailable(path, ": cannot open: ", std::strerror(why));
  }
  struct stat info {};
  if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
    ::close(fd);
    return invalid_argument(path, ": not a regular file");
  }
  MappedFile file;
  file.path_ = path;
  file.bytes_ = info.st_size;
  if (info.st_size > 0) {
    void* p = mmap(nullptr, static_cast<size_t>(info.st_size), PROT_READ, MAP_PRIVATE, fd, 0);
    if (p == MAP_FAILED) {
      const int why = errno;
      ::close(fd);
      file.bytes_ = 0;
      return unavailable(path, ": cannot map ", info.st_size, " bytes: ", std::strerror(why));
    }
    file.data_ = static_cast<const std::byte*>(p);
  }
  ::close(fd);
  return file;
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) munmap(const_cast<std::byte*>(data_), static_cast<size_t>(bytes_));
}

void MappedFile::forget(int64_t begin, int64_t bytes) const {
  if (data_ == nullptr) return;
  const int64_t page = sysconf(_SC_PAGESIZE);
  const int64_t first = (begin + page - 1) / page * page, last = (begin + bytes) / page * page;
  if (first < last) {
    madvise(const_cast<std::byte*>(data_) + first, static_cast<size_t>(last - first),
            MADV_DONTNEED);
  }
}

}  // namespace rk
