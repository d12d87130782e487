// Digests of files, remembered between runs by what `stat` says of them.
#include <fcntl.h>
#include <openssl/evp.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <boost/json/value.hpp>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <vector>

#include "kv/identity.h"

namespace rk::kv {
namespace json = boost::json;
namespace fs = std::filesystem;
namespace {

constexpr int64_t kMaxCacheBytes = 1 << 20;
constexpr size_t kMaxEntries = 1000;
constexpr int64_t kSettledNs =
    100'000'000;  // a younger file may still change within one mtime tick

/// What tells one state of a file from another.
struct Stamp {
  int64_t size = 0, mtime_ns = 0, inode = 0, device = 0;
  bool operator==(const Stamp&) const = default;
};

class OpenFile {
 public:
  // Not blocking: a FIFO in a model's place must not hang the server.
  explicit OpenFile(const std::string& path)
      : fd_(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)) {}
  ~OpenFile() {
    if (fd_ >= 0) ::close(fd_);
  }
  OpenFile(const OpenFile&) = delete;
  OpenFile& operator=(const OpenFile&) = delete;
  int fd() const { return fd_; }

 private:
  int fd_;
};

Result<Stamp> stamp_of(int fd, const std::string& path) {
  struct stat s {};
  if (::fstat(fd, &s) != 0) return unavailable(path, ": ", std::strerror(errno));
  if (!S_ISREG(s.st_mode)) return invalid_argument(path, ": not a regular file");
  return Stamp{s.st_size, int64_t{s.st_mtim.tv_sec} * 1'000'000'000 + s.st_mtim.tv_nsec,
               static_cast<int64_t>(s.st_ino), static_cast<int64_t>(s.st_dev)};
}

Status open_error(const std::string& path) {
  const int error = errno;
  if (error == ENOENT || error == ENOTDIR) return not_found(path, ": no such file");
  return unavailable(path, ": ", std::strerror(error));
}

struct FreeMd {
  void operator()(EVP_MD_CTX* ctx) const { EVP_MD_CTX_free(ctx); }
};

Result<Digest> hash_open_file(int fd, const std::string& path, const CancelFn& cancelled) {
  const std::unique_ptr<EVP_MD_CTX, FreeMd> md(EVP_MD_CTX_new());
  if (!md || EVP_DigestInit_ex(md.get(), EVP_sha256(), nullptr) != 1) {
    return internal(path, ": SHA-256 cannot start");
  }
  std::vector<char> piece(1 << 20);
  for (;;) {
    if (cancelled && cancelled()) return rk::cancelled(path, ": hashing was stopped");
    const ssize_t got = ::read(fd, piece.data(), piece.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return unavailable(path, ": ", std::strerror(errno));
    if (got == 0) break;
    EVP_DigestUpdate(md.get(), piece.data(), static_cast<size_t>(got));
  }
  Digest out;
  EVP_DigestFinal_ex(md.get(), out.bytes.data(), nullptr);
  return out;
}

int64_t now_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

/// The remembered digests. A file that is missing or damaged is an empty memory.
class DigestCache {
 public:
  explicit DigestCache(const std::string& folder)
      : path_(folder.empty() ? "" : (fs::path(folder) / "weights_digests.json").string()) {
    if (!path_.empty()) read();
  }

  const Digest* find(const std::string& path, const Stamp& stamp) const {
    const auto it = entries_.find(path);
    return it != entries_.end() && it->second.stamp == stamp ? &it->second.digest : nullptr;
  }

  void remember(const std::string& path, const Stamp& stamp, const Digest& digest) {
    if (path_.empty() || now_ns() - stamp.mtime_ns < kSettledNs) return;
    if (entries_.size() >= kMaxEntries) entries_.clear();
    entries_[path] = {stamp, digest};
    write();
  }

 private:
  struct Entry {
    Stamp stamp;
    Digest digest;
  };

  void read() {
    std::error_code error;
    const auto size = fs::file_size(path_, error);
    if (error || static_cast<int64_t>(size) > kMaxCacheBytes) return;
    std::ifstream in(path_, std::ios::binary);
    std::string text(static_cast<size_t>(size), '\0');
    if (!in.read(text.data(), static_cast<std::streamsize>(size))) return;
    boost::system::error_code bad;
    const json::value root = json::parse(text, bad);
    if (bad || !root.is_object()) return;
    const json::value* files = root.get_object().if_contains("files");
    if (files == nullptr || !files->is_array()) return;
    for (const json::value& file : files->get_array()) {
      if (file.is_object()) read_entry(file.get_object());
    }
  }

  void read_entry(const json::object& file) {
    const auto number = [&](const char* key, int64_t& out) {
      const json::value* v = file.if_contains(key);
      if (v == nullptr || !v->is_int64()) return false;
      out = v->get_int64();
      return true;
    };
    const json::value *path = file.if_contains("path"), *sha = file.if_contains("sha256");
    Entry entry;
    if (!path || !path->is_string() || !sha || !sha->is_string() ||
        !number("size", entry.stamp.size) || !number("mtime_ns", entry.stamp.mtime_ns) ||
        !number("inode", entry.stamp.inode) || !number("device", entry.stamp.device)) {
      return;
    }
    const Result<Digest> digest = Digest::from_hex(std::string_view(sha->get_string()));
    if (!digest.ok()) return;
    entry.digest = *digest;
    entries_[std::string(path->get_string())] = entry;
  }

  // Written beside and renamed, so that a reader never sees half a file.
  void write() const {
    json::array files;
    for (const auto& [path, e] : entries_) {
      files.push_back({{"path", path},
                       {"size", e.stamp.size},
                       {"mtime_ns", e.stamp.mtime_ns},
                       {"inode", e.stamp.inode},
                       {"device", e.stamp.device},
                       {"sha256", e.digest.hex()}});
    }
    std::error_code error;
    fs::create_directories(fs::path(path_).parent_path(), error);
    const std::string beside = cat(path_, ".", ::getpid(), ".tmp");
    bool written = false;
    {
      std::ofstream out(beside, std::ios::binary | std::ios::trunc);
      out << json::serialize(json::object{{"version", 1}, {"files", std::move(files)}});
      out.close();
      written = !out.fail();
    }
    if (written) fs::rename(beside, path_, error);
    if (!written || error) fs::remove(beside, error);
  }

  std::string path_;
  std::map<std::string, Entry> entries_;
};

Result<Digest> remembered_digest(const std::string& path, DigestCache& cache,
                                 const CancelFn& cancelled) {
  const OpenFile file(path);
  if (file.fd() < 0) return open_error(path);
  RK_TRY(const Stamp before, stamp_of(file.fd(), path));
  std::error_code error;
  const fs::path canonical = fs::canonical(path, error);
  const std::string key = error ? path : canonical.string();
  if (const Digest* known = cache.find(key, before)) return *known;
  RK_TRY(const Digest digest, hash_open_file(file.fd(), path, cancelled));
  RK_TRY(const Stamp after, stamp_of(file.fd(), path));
  if (after != before) return unavailable(path, ": changed while it was read");
  cache.remember(key, before, digest);
  return digest;
}

}  // namespace

Result<Digest> file_digest(const std::string& path, const CancelFn& cancelled) {
  DigestCache none("");
  return remembered_digest(path, none, cancelled);
}

Result<Digest> weights_digest(const std::string& path, const std::string& cache_dir,
                              const CancelFn& cancelled) {
  DigestCache cache(cache_dir);
  std::error_code error;
  if (!fs::is_directory(path, error)) return remembered_digest(path, cache, cancelled);
  std::vector<std::string> names;
  for (fs::directory_iterator it(path, error), end; !error && it != end; it.increment(error)) {
    const fs::path name = it->path().filename();
    if (name.extension() == ".safetensors" || name == "config.json") names.push_back(name.string());
  }
  if (error) return unavailable(path, ": ", error.message());
  std::ranges::sort(names);
  if (std::ranges::none_of(names, [](const auto& n) { return n.ends_with(".safetensors"); })) {
    return not_found(path, ": no *.safetensors in this folder");
  }
  IdentityBuilder id("weights folder");
  for (const std::string& name : names) {
    RK_TRY(const Digest digest,
           remembered_digest((fs::path(path) / name).string(), cache, cancelled));
    id.add("name", name).add("digest", digest);
  }
  return id.finish();
}

}  // namespace rk::kv
