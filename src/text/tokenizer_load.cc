// Where a model's tokenizer lies on disk.
#include <filesystem>
#include <fstream>

#include "tensor/gguf.h"
#include "text/tokenizer.h"

namespace rk::text {
namespace {

constexpr int64_t kMaxFileBytes = int64_t{256} << 20;

/// The file's text; "" where it is absent and need not be there.
Result<std::string> read_file(const std::filesystem::path& path, bool required) {
  std::error_code ec;
  if (!std::filesystem::is_regular_file(path, ec)) {
    if (required) return not_found(path.string(), ": no such file");
    return std::string();
  }
  std::ifstream in(path, std::ios::binary | std::ios::ate);
  const int64_t size = in ? static_cast<int64_t>(in.tellg()) : -1;
  if (size < 0) return not_found(path.string(), ": cannot be read");
  if (size > kMaxFileBytes) {
    return invalid_argument(path.string(), ": ", size, " bytes, limit ", kMaxFileBytes);
  }
  std::string text(static_cast<size_t>(size), '\0');
  in.seekg(0);
  if (!in.read(text.data(), size))
    return data_loss(path.string(), ": cannot read ", size, " bytes");
  return text;
}

}  // namespace

Result<std::unique_ptr<Tokenizer>> Tokenizer::load(const std::string& model_path) {
  const std::filesystem::path path(model_path);
  std::error_code ec;
  if (!std::filesystem::is_directory(path, ec)) {
    RK_TRY(const GgufFile file, GgufFile::open(model_path));
    return from_gguf(file);
  }
  RK_TRY(const std::string json, read_file(path / "tokenizer.json", true));
  RK_TRY(const std::string config, read_file(path / "tokenizer_config.json", false));
  RK_TRY(const std::string generation, read_file(path / "generation_config.json", false));
  auto tokenizer = from_json(json, config, generation);
  if (!tokenizer.ok()) {
    return Status(tokenizer.code(), cat(path.string(), ": ", tokenizer.status().message()));
  }
  return tokenizer;
}

}  // namespace rk::text
