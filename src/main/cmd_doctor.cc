#include <dlfcn.h>
#include <unistd.h>

#include <boost/json.hpp>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <optional>

#include "base/cpu.h"
#include "base/thread_pool.h"
#include "main/cli.h"
#include "main/download.h"
#include "main/output.h"
#include "main/pull.h"
#include "main/version.h"
#include "tensor/buffer.h"

namespace rk::cli {
namespace {

namespace json = boost::json;
namespace fs = std::filesystem;

struct Finding {
  std::string name, value, advice;  ///< advice: what is missing and how to get it, or empty
};

/// What the NVIDIA driver says, where there is one. The driver is found at run time only.
std::string gpu_text() {
  void* lib = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  if (lib == nullptr) return "no driver (libcuda.so.1)";
  const auto init = reinterpret_cast<int (*)(unsigned)>(dlsym(lib, "cuInit"));
  const auto count = reinterpret_cast<int (*)(int*)>(dlsym(lib, "cuDeviceGetCount"));
  const auto name = reinterpret_cast<int (*)(char*, int, int)>(dlsym(lib, "cuDeviceGetName"));
  int devices = 0;
  std::string text;
  if (init == nullptr || count == nullptr || name == nullptr) {
    text = "a driver without the calls we know";
  } else if (init(0) != 0 || count(&devices) != 0 || devices == 0) {
    text = "a driver, and no usable device";
  } else {
    for (int i = 0; i < devices && i < 64; ++i) {
      char device[128] = "";
      if (name(device, sizeof device - 1, i) == 0) text += cat(text.empty() ? "" : ", ", device);
    }
  }
  dlclose(lib);
  return text;
}

bool on_path(const std::string& program) {
  const char* path = std::getenv("PATH");
  std::string rest = path == nullptr ? "" : path;
  while (!rest.empty()) {
    const size_t colon = rest.find(':');
    const std::string candidate = rest.substr(0, colon) + "/" + program;
    if (access(candidate.c_str(), X_OK) == 0) return true;
    rest = colon == std::string::npos ? "" : rest.substr(colon + 1);
  }
  return false;
}

Finding memory() {
  const int64_t bytes = available_memory_bytes();
  Finding f{"memory", human_bytes(bytes) + " available", ""};
  if (bytes < 1'000'000'000) f.advice = "under 1 GB: only the smallest models will run";
  return f;
}

Finding cpu() {
  Finding f{"cpu", cat(cpu_brand(), ", ", usable_cores(), " usable cores"), ""};
  if (!cpu_features().avx2) f.advice = "no AVX2: the slow reference kernels will be used";
  return f;
}

Finding pip() {
  const bool here = on_path("pip3") || on_path("pip") || on_path("python3");
  return {"pip", here ? "found" : "not found",
          here ? "" : "pull will ask the package index itself; apt install python3-pip"};
}

Finding models(const std::string& model) {
  const Result<std::string> path = resolve_model(model);
  return path.ok() ? Finding{"model", *path, ""}
                   : Finding{"model", "not here", path.status().message()};
}

Finding storage() {
  const Result<std::string> dir = model_directory();
  if (!dir.ok()) return {"model directory", "none", dir.status().message()};
  fs::path existing = *dir;
  std::error_code ec;
  while (!existing.empty() && !fs::exists(existing, ec) && existing.has_parent_path()) {
    existing = existing.parent_path();
  }
  const int64_t free = free_disk_bytes((existing / "x").string());
  return {"model directory", cat(*dir, ", ", human_bytes(free), " free"),
          access(existing.c_str(), W_OK) == 0 ? "" : cat(existing.string(), " cannot be written")};
}

Status doctor(const CommonFlags& common) {
  const std::vector<Finding> findings = {
      {"redknot", cat(version(), ", commit ", commit()), ""},
      cpu(),
      {"cpu features", cpu_feature_names(), ""},
      memory(),
      {"gpu", gpu_text(), ""},
      {"used", "cpu (this version has no GPU kernels)", ""},
      pip(),
      storage(),
      models(common.model),
  };
  if (common.json) {
    json::array out;
    for (const Finding& f : findings) {
      out.push_back(json::object{{"name", f.name}, {"value", f.value}, {"advice", f.advice}});
    }
    std::cout << out << "\n";
    return {};
  }
  std::vector<std::pair<std::string, std::string>> lines;
  for (const Finding& f : findings) {
    lines.emplace_back(f.name, f.value);
    if (!f.advice.empty()) lines.emplace_back("", "-> " + f.advice);
  }
  print_fields(lines);
  return {};
}

}  // namespace

/// redknot doctor: what is here, what will be used, what is missing and how to get it.
Command cmd_doctor() {
  return {
      .name = "doctor",
      .summary = "what this machine has, what will be used, what is missing and how to get it",
      .examples = "  redknot doctor\n  redknot doctor --json\n",
      .uses = kUsesModel | kUsesJson,
      .declare = [](Flags&, const CommonFlags& common) -> Action {
        return {[&common] { return doctor(common); }};
      },
  };
}

}  // namespace rk::cli
