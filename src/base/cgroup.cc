#include "base/cgroup.h"

#include <algorithm>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

namespace rk {
namespace {

constexpr char kRoot[] = "/sys/fs/cgroup";

std::optional<double> read_number(const std::string& path) {
  std::ifstream file(path);
  double value = 0;
  if (file >> value) return value;
  return std::nullopt;
}

template <class T>
void tighten(std::optional<T>& limit, T value) {
  limit = limit ? std::min(*limit, value) : value;
}

void read_room(const std::string& limit_file, const std::string& usage_file, CgroupLimits& out) {
  const auto limit = read_number(limit_file);
  if (!limit || *limit > 1e18) return;  // v1 says "no limit" with a huge number
  const double used = read_number(usage_file).value_or(0);
  tighten(out.memory_bytes, static_cast<int64_t>(std::max(0.0, *limit - used)));
}

void read_quota(double quota, double period, CgroupLimits& out) {
  if (quota > 0 && period > 0) tighten(out.cores, quota / period);
}

void read_v2(const std::string& folder, CgroupLimits& out) {
  std::ifstream file(folder + "/cpu.max");
  double quota = 0;
  double period = 0;
  if (file >> quota >> period) read_quota(quota, period, out);  // "max 100000" fails to parse
  read_room(folder + "/memory.max", folder + "/memory.current", out);
}

/// "/a/b" gives "/a/b", "/a", "": the group and its parents. Inside a container the path may not
/// exist below the mount, then only the mount's root answers.
std::vector<std::string> with_parents(std::string path) {
  std::vector<std::string> out;
  while (path.size() > 1) {
    out.push_back(path);
    path.resize(path.rfind('/') == std::string::npos ? 0 : path.rfind('/'));
  }
  out.emplace_back();
  return out;
}

}  // namespace

CgroupLimits cgroup_limits() {
  CgroupLimits out;
  std::ifstream groups("/proc/self/cgroup");
  for (std::string line; std::getline(groups, line);) {  // id:controllers:path
    const size_t first = line.find(':');
    const size_t second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = "," + line.substr(first + 1, second - first - 1) + ",";
    for (const std::string& path : with_parents(line.substr(second + 1))) {
      if (controllers == ",,") read_v2(kRoot + path, out);
      if (controllers.find(",memory,") != std::string::npos) {
        const std::string folder = std::string(kRoot) + "/memory" + path;
        read_room(folder + "/memory.limit_in_bytes", folder + "/memory.usage_in_bytes", out);
      }
      if (controllers.find(",cpu,") != std::string::npos) {
        const std::string folder = std::string(kRoot) + "/cpu" + path;
        read_quota(read_number(folder + "/cpu.cfs_quota_us").value_or(0),
                   read_number(folder + "/cpu.cfs_period_us").value_or(0), out);
      }
    }
  }
  return out;
}

}  // namespace rk
