// Longer than 300 lines: one state machine over curl's callbacks, which would not read better
// apart.
#include "main/download.h"

#include <curl/curl.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <boost/json.hpp>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <thread>

#include "main/sha256.h"
#include "main/version.h"

namespace rk::cli {
namespace {

namespace json = boost::json;
namespace fs = std::filesystem;

constexpr int64_t kDiskReserve = 16 << 20;  // what a download leaves free

/// What a part file is a part of.
struct PartInfo {
  std::string url, etag;
  int64_t size = -1;
};

PartInfo read_part_info(const std::string& path) {
  std::ifstream in(path);
  std::stringstream text;
  text << in.rdbuf();
  PartInfo info;
  json::error_code ec;
  const json::value v = json::parse(text.str(), ec);
  if (ec || !v.is_object()) return {};
  const json::object& o = v.get_object();
  const auto text_of = [&](const char* key) {
    const json::value* p = o.if_contains(key);
    return p != nullptr && p->is_string() ? std::string(p->get_string()) : std::string();
  };
  info.url = text_of("url");
  info.etag = text_of("etag");
  if (const json::value* p = o.if_contains("size"); p != nullptr && p->is_int64()) {
    info.size = p->get_int64();
  }
  return info;
}

void write_part_info(const std::string& path, const PartInfo& info) {
  std::ofstream(path) << json::object{{"url", info.url}, {"etag", info.etag}, {"size", info.size}};
}

std::string trimmed(std::string_view s) {
  while (!s.empty() && std::strchr(" \t\r\n", s.front()) != nullptr) s.remove_prefix(1);
  while (!s.empty() && std::strchr(" \t\r\n", s.back()) != nullptr) s.remove_suffix(1);
  return std::string(s);
}

std::string lower(std::string s) {
  for (char& c : s) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  return s;
}

bool is_sha256(const std::string& s) {
  return s.size() == 64 && s.find_first_not_of("0123456789abcdef") == std::string::npos;
}

int64_t parse_count(const std::string& s) {  // -1 for anything but a plain number
  if (s.empty() || s.find_first_not_of("0123456789") != std::string::npos) return -1;
  return s.size() > 18 ? INT64_MAX / 2 : std::atoll(s.c_str());  // absurd stays too large
}

/// Headers of the response that is being read; a redirect's are replaced by the next one's.
struct Headers {
  int code = 0;
  std::string etag, location;
  int64_t length = -1, range_begin = -1, total = -1;
  bool encoded = false;
};

struct Transfer {
  Transfer(const DownloadOptions& o, Progress& p) : options(o), progress(p) {}
  const DownloadOptions& options;
  Progress& progress;
  int fd = -1;
  Sha256 sha;
  PartInfo part;
  int64_t have = 0;  ///< bytes in the part file, all of them in `sha`
  int64_t resumed_at = 0;
  int64_t total = -1;
  Headers headers;
  std::string linked_sha256;  ///< the digest the server names, in any response of the chain
  bool begun = false;
  bool restart = false;  ///< what is here is not a beginning of what the server has
  Status error;

  Status truncate() {
    if (ftruncate(fd, 0) != 0 || lseek(fd, 0, SEEK_SET) != 0) {
      return unavailable(options.path, ".part: ", std::strerror(errno));
    }
    have = 0;
    resumed_at = 0;
    sha = Sha256();
    return {};
  }

  bool good() const { return headers.code == 200 || headers.code == 206; }

  /// The first byte of a body is there: is it what we asked for, and does it fit?
  Status begin() {
    begun = true;
    if (!good()) return {};
    if (headers.encoded)
      return invalid_argument(options.url, ": the server encoded the file's bytes");
    if (headers.code == 206) {
      const bool same = headers.range_begin == have &&
                        (part.etag.empty() || headers.etag.empty() || part.etag == headers.etag) &&
                        (part.size < 0 || headers.total < 0 || part.size == headers.total);
      if (!same) {
        restart = true;
        return data_loss(options.url, ": the file changed since its first part was fetched");
      }
      resumed_at = have;
      total = headers.total;
    } else {
      RK_RETURN_IF_ERROR(truncate());
      total = headers.length;
    }
    if (options.expected_bytes >= 0 && total >= 0 && total != options.expected_bytes) {
      return data_loss(options.url, ": the server has ", total, " bytes, ", options.expected_bytes,
                       " wanted");
    }
    if (std::max(total, have) > options.max_bytes) {
      return exhausted(options.url, ": ", total, " bytes, at most ", options.max_bytes, " allowed");
    }
    if (const int64_t free = free_disk_bytes(options.path);
        total >= 0 && total - have + kDiskReserve > free) {
      return exhausted(options.path, ": ", total - have, " bytes to fetch, ", free,
                       " free on the disk");
    }
    part = {options.url, headers.etag, total};
    write_part_info(options.path + ".part.json", part);
    return {};
  }

  Status write(const char* data, size_t bytes) {
    if (!begun) RK_RETURN_IF_ERROR(begin());
    if (!good()) return {};  // an error's page: not ours to keep
    const int64_t limit = std::min(options.max_bytes, total >= 0 ? total : options.max_bytes);
    if (have + static_cast<int64_t>(bytes) > limit) {
      return exhausted(options.url, ": more than ", limit, " bytes arrived");
    }
    if (total < 0 && free_disk_bytes(options.path) < kDiskReserve) {
      return exhausted(options.path, ": disk full after ", have, " bytes");
    }
    for (size_t done = 0; done < bytes;) {
      const ssize_t n = ::write(fd, data + done, bytes - done);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) {
        const bool full = errno == ENOSPC || errno == EDQUOT;
        const std::string why = std::strerror(errno);
        return full ? exhausted(options.path, ": ", why, " after ", have, " bytes")
                    : unavailable(options.path, ": ", why);
      }
      sha.update(data + done, static_cast<size_t>(n));
      have += n;
      done += static_cast<size_t>(n);
    }
    progress.bytes(fs::path(options.path).filename().string(), have, total);
    return {};
  }

  void header(std::string line) {
    if (line.starts_with("HTTP/")) {
      headers = {};
      const size_t space = line.find(' ');
      headers.code = space == std::string::npos ? 0 : std::atoi(line.c_str() + space);
      return;
    }
    const size_t colon = line.find(':');
    if (colon == std::string::npos) return;
    const std::string name = lower(trimmed(std::string_view(line).substr(0, colon)));
    const std::string value = trimmed(std::string_view(line).substr(colon + 1));
    if (name == "etag") headers.etag = value;
    if (name == "location") headers.location = value;
    if (name == "content-length") headers.length = parse_count(value);
    if (name == "content-encoding") headers.encoded = lower(value) != "identity";
    if (name == "x-linked-etag") {
      const std::string digest =
          lower(value.size() > 2 && value[0] == '"' ? value.substr(1, value.size() - 2) : value);
      if (is_sha256(digest)) linked_sha256 = digest;
    }
    if (name == "content-range" && value.starts_with("bytes ")) {
      const size_t dash = value.find('-'), slash = value.find('/');
      if (dash != std::string::npos) headers.range_begin = parse_count(value.substr(6, dash - 6));
      if (slash != std::string::npos) headers.total = parse_count(value.substr(slash + 1));
    }
  }
};

size_t on_header(char* data, size_t size, size_t count, void* user) {
  static_cast<Transfer*>(user)->header(std::string(data, size * count));
  return size * count;
}

size_t on_body(char* data, size_t size, size_t count, void* user) {
  auto* t = static_cast<Transfer*>(user);
  t->error = t->write(data, size * count);
  return t->error.ok() ? size * count : 0;
}

struct Curl {
  Curl() {
    static const CURLcode once = curl_global_init(CURL_GLOBAL_DEFAULT);
    (void)once;
    handle = curl_easy_init();
  }
  ~Curl() {
    curl_slist_free_all(list);
    curl_easy_cleanup(handle);
  }
  Curl(const Curl&) = delete;
  Curl& operator=(const Curl&) = delete;

  template <class T>
  void set(CURLoption option, T value) {
    curl_easy_setopt(handle, option, value);
  }
  CURL* handle = nullptr;
  curl_slist* list = nullptr;
  char error[CURL_ERROR_SIZE] = "";
};

Status prepare(Curl& curl, const std::string& url) {
  const bool tls = lower(url).starts_with("https://");
  if (!tls && !lower(url).starts_with("http://")) {
    return invalid_argument("'", url, "': only http and https are fetched");
  }
  if (curl.handle == nullptr) return internal("curl: no handle");
  curl.set(CURLOPT_URL, url.c_str());
  curl.set(CURLOPT_ERRORBUFFER, static_cast<char*>(curl.error));
  curl.set(CURLOPT_NOSIGNAL, 1L);
  curl.set(CURLOPT_FOLLOWLOCATION, 1L);
  curl.set(CURLOPT_MAXREDIRS, 10L);
  curl.set(CURLOPT_PROTOCOLS_STR, "http,https");
  curl.set(CURLOPT_REDIR_PROTOCOLS_STR, tls ? "https" : "http,https");
  curl.set(CURLOPT_CONNECTTIMEOUT, 20L);
  curl.set(CURLOPT_LOW_SPEED_LIMIT, 500L);
  curl.set(CURLOPT_LOW_SPEED_TIME, 30L);
  curl.set(CURLOPT_USERAGENT, cat("redknot/", version()).c_str());
  return {};
}

bool worth_a_retry(CURLcode code, int http) {
  switch (code) {
    case CURLE_OK:
      return http == 429 || http >= 500;
    case CURLE_PARTIAL_FILE:
    case CURLE_RECV_ERROR:
    case CURLE_SEND_ERROR:
    case CURLE_GOT_NOTHING:
    case CURLE_OPERATION_TIMEDOUT:
    case CURLE_HTTP2:
    case CURLE_HTTP2_STREAM:
      return true;
    default:
      return false;
  }
}

Status http_status(const std::string& url, int code) {
  if (code == 404) return not_found(url, ": 404, there is no such file");
  if (code == 401 || code == 403)
    return invalid_argument(url, ": ", code, ", the server refuses access");
  if (code == 429 || code >= 500) return unavailable(url, ": the server answers ", code);
  return invalid_argument(url, ": the server answers ", code);
}

Status curl_status(const std::string& url, CURLcode code, const Curl& curl,
                   const Headers& headers) {
  const std::string why = curl.error[0] != 0 ? curl.error : curl_easy_strerror(code);
  if (code == CURLE_UNSUPPORTED_PROTOCOL) {
    return invalid_argument(url, ": redirect to '", headers.location, "' refused: ", why);
  }
  if (code == CURLE_URL_MALFORMAT) return invalid_argument("'", url, "': ", why);
  return unavailable(url, ": ", why);
}

/// One request. Sets t.restart where the part must be thrown away first.
Status attempt(Transfer& t, bool& again) {
  Curl curl;
  RK_RETURN_IF_ERROR(prepare(curl, t.options.url));
  curl.set(CURLOPT_HEADERFUNCTION, on_header);
  curl.set(CURLOPT_HEADERDATA, &t);
  curl.set(CURLOPT_WRITEFUNCTION, on_body);
  curl.set(CURLOPT_WRITEDATA, &t);
  if (t.have > 0) {
    curl.list = curl_slist_append(curl.list, cat("Range: bytes=", t.have, "-").c_str());
    if (t.part.etag.starts_with('"')) {  // a strong one
      curl.list = curl_slist_append(curl.list, cat("If-Range: ", t.part.etag).c_str());
    }
    curl.set(CURLOPT_HTTPHEADER, curl.list);
  }
  t.begun = false;
  t.error = {};
  t.headers = {};
  t.total = -1;
  const CURLcode code = curl_easy_perform(curl.handle);
  again = worth_a_retry(code, t.headers.code);
  if (!t.error.ok()) return t.error;
  if (code != CURLE_OK) return curl_status(t.options.url, code, curl, t.headers);
  if (t.headers.code == 416 && t.have > 0) {
    if (t.headers.total == t.have && t.part.size == t.have) {  // it was whole already
      t.total = t.have;
      return {};
    }
    t.restart = true;
    return data_loss(t.options.url, ": the file changed since its first part was fetched");
  }
  if (!t.good()) return http_status(t.options.url, t.headers.code);
  if (!t.begun) RK_RETURN_IF_ERROR(t.begin());  // an empty body
  if (t.total >= 0 && t.have != t.total) {
    again = true;
    return unavailable(t.options.url, ": ", t.have, " of ", t.total, " bytes arrived");
  }
  return {};
}

/// Takes over a part that an earlier run left, where it is of the same URL.
Status adopt_part(Transfer& t) {
  t.part = read_part_info(t.options.path + ".part.json");
  const int64_t size = lseek(t.fd, 0, SEEK_END);
  const bool usable = t.part.url == t.options.url && size > 0 &&
                      (t.part.size < 0 || size <= t.part.size) &&
                      !(t.part.etag.empty() && t.part.size < 0);
  if (!usable) {
    t.part = {};
    return t.truncate();
  }
  lseek(t.fd, 0, SEEK_SET);
  std::string block(1 << 20, '\0');
  while (t.have < size) {
    const ssize_t n = read(t.fd, block.data(), block.size());
    if (n <= 0) {
      t.part = {};
      return t.truncate();
    }
    t.sha.update(block.data(), static_cast<size_t>(n));
    t.have += n;
  }
  return {};
}

Status fetch(Transfer& t) {
  for (int tries = 0;; ++tries) {
    bool again = false;
    const Status status = attempt(t, again);
    if (status.ok()) return {};
    if (t.restart) {
      t.restart = false;
      t.progress.note(cat(t.options.url, ": changed on the server, starting again"));
      t.part = {};
      RK_RETURN_IF_ERROR(t.truncate());
      if (tries <= t.options.retries) continue;
    }
    if (!again || tries >= t.options.retries) return status;
    t.progress.note(cat(status.message(), "; trying again at byte ", t.have));
    std::this_thread::sleep_for(std::chrono::milliseconds(std::min(200 << tries, 5000)));
  }
}

}  // namespace

Result<Downloaded> download(const DownloadOptions& options, Progress& progress) {
  std::error_code ec;
  const fs::path folder = fs::path(options.path).parent_path();
  if (!folder.empty()) fs::create_directories(folder, ec);
  if (ec) return unavailable(folder.string(), ": ", ec.message());
  const std::string part = options.path + ".part";
  Transfer t(options, progress);
  t.fd = open(part.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
  if (t.fd < 0) return unavailable(part, ": ", std::strerror(errno));
  struct Close {
    int fd;
    ~Close() { close(fd); }
  } closer{t.fd};
  if (flock(t.fd, LOCK_EX | LOCK_NB) != 0)
    return unavailable(part, ": another process is fetching it");

  RK_RETURN_IF_ERROR(adopt_part(t));
  const Status fetched = fetch(t);
  progress.end();
  if (!fetched.ok()) {
    if (t.have == 0) {
      fs::remove(part, ec);
      fs::remove(part + ".json", ec);
    }
    return fetched;
  }
  Downloaded out;
  out.bytes = t.have;
  out.resumed_at = t.resumed_at;
  out.sha256 = t.sha.finish();
  const std::string want = lower(options.sha256.empty() ? t.linked_sha256 : options.sha256);
  out.verified = !want.empty();
  const bool size_ok = options.expected_bytes < 0 || options.expected_bytes == out.bytes;
  if (!size_ok || (!want.empty() && want != out.sha256)) {
    fs::remove(part, ec);
    fs::remove(part + ".json", ec);
    if (!size_ok) {
      return data_loss(options.url, ": ", out.bytes, " bytes, ", options.expected_bytes, " wanted");
    }
    return data_loss(options.url, ": SHA-256 is ", out.sha256, ", ", want,
                     " wanted; nothing was kept");
  }
  if (fsync(t.fd) != 0) return unavailable(part, ": ", std::strerror(errno));
  fs::rename(part, options.path, ec);
  if (ec) return unavailable(options.path, ": ", ec.message());
  fs::remove(part + ".json", ec);
  return out;
}

Result<std::string> fetch_text(const std::string& url, int64_t max_bytes) {
  struct Text {
    std::string text;
    int64_t max;
    bool over = false;
  } out{{}, max_bytes};
  Curl curl;
  RK_RETURN_IF_ERROR(prepare(curl, url));
  curl.set(
      CURLOPT_WRITEFUNCTION, +[](char* data, size_t size, size_t count, void* user) -> size_t {
        auto* o = static_cast<Text*>(user);
        o->over = static_cast<int64_t>(o->text.size() + size * count) > o->max;
        if (!o->over) o->text.append(data, size * count);
        return o->over ? 0 : size * count;
      });
  curl.set(CURLOPT_WRITEDATA, &out);
  curl.set(CURLOPT_TIMEOUT, 60L);
  const CURLcode code = curl_easy_perform(curl.handle);
  if (out.over) return exhausted(url, ": more than ", max_bytes, " bytes");
  if (code != CURLE_OK) return curl_status(url, code, curl, {});
  long http = 0;
  curl_easy_getinfo(curl.handle, CURLINFO_RESPONSE_CODE, &http);
  if (http != 200) return http_status(url, static_cast<int>(http));
  return std::move(out.text);
}

Result<std::string> file_sha256(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) return not_found(path, ": cannot be read");
  Sha256 sha;
  std::string block(1 << 20, '\0');
  while (in.read(block.data(), static_cast<std::streamsize>(block.size())) || in.gcount() > 0) {
    sha.update(block.data(), static_cast<size_t>(in.gcount()));
  }
  return sha.finish();
}

int64_t free_disk_bytes(const std::string& path) {
  struct statvfs s {};
  const fs::path folder = fs::path(path).parent_path();
  if (statvfs(folder.empty() ? "." : folder.c_str(), &s) != 0) return INT64_MAX;
  return static_cast<int64_t>(s.f_bavail) * static_cast<int64_t>(s.f_frsize);
}

}  // namespace rk::cli
