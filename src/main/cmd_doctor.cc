#include <unistd.h>

#include <boost/json.hpp>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <optional>

#include "base/cpu.h"
#include "base/thread_pool.h"
#include "kernels/gemm/gemm_cuda.h"
#include "main/cli.h"
#include "main/download.h"
#include "main/output.h"
#include "main/pull.h"
#include "main/version.h"
#include "tensor/buffer.h"
#include "tensor/device.h"

namespace rk::cli {
namespace {

namespace json = boost::json;
namespace fs = std::filesystem;

struct Finding {
  std::string name, value, advice;  ///< advice: what is missing and how to get it, or empty
};

/// The cards this build can use, or why it cannot.
Finding cards() {
  Finding f{"gpu", "", ""};
  const int count = num_cards();
  for (int i = 0; i < count; ++i) {
    const Result<CardInfo> card = open_card(i);
    if (!card.ok()) {
      f.advice = card.status().message();
      continue;
    }
    f.value += cat(f.value.empty() ? "" : ", ", "cuda:", i, " ", card->name,
                   ", compute capability ", card->major, ".", card->minor, ", ",
                   human_bytes(card->free_bytes), " of ", human_bytes(card->total_bytes), " free");
  }
  if (count == 0) {
    f.value = "none";
    f.advice = open_card(0).status().message();
  }
  return f;
}

Finding gpu_library() {
  Finding f{"cuBLASLt", "", ""};
  if (num_cards() == 0) return {"cuBLASLt", "not looked for", ""};
  const Result<Stream> stream = create_stream();
  const Status status =
      stream.ok() ? kernels::GemmCuda::create({}, stream.value()).status() : stream.status();
  f.value = status.ok() ? "found" : "not usable";
  if (!status.ok()) f.advice = status.message();
  return f;
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
      cards(),
      gpu_library(),
      {"used", num_cards() > 0 ? "cpu; with --device cuda the card" : "cpu", ""},
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
