// Where a model keeps its chat template.
#include <boost/json.hpp>
#include <filesystem>
#include <fstream>

#include "tensor/gguf.h"
#include "text/chat_template.h"

namespace rk::text {
namespace {

namespace fs = std::filesystem;
constexpr uintmax_t kMaxFileBytes = uintmax_t{64} << 20;

/// The file's text, or "" where there is no such file.
Result<std::string> read_text(const fs::path& path) {
  std::error_code code;
  if (!fs::exists(path, code)) return std::string();
  if (!fs::is_regular_file(path, code))
    return invalid_argument(path.string(), ": not a regular file");
  const uintmax_t size = fs::file_size(path, code);
  if (code) return invalid_argument(path.string(), ": ", code.message());
  if (size > kMaxFileBytes) {
    return invalid_argument(path.string(), ": ", size, " bytes, limit ", kMaxFileBytes);
  }
  std::ifstream in(path, std::ios::binary);
  std::string text(size, '\0');
  in.read(text.data(), static_cast<std::streamsize>(size));
  if (!in) return data_loss(path.string(), ": ", in.gcount(), " bytes read of ", size);
  return text;
}

/// "chat_template" of tokenizer_config.json: a text, or a list of {name, template} with a
/// "default".
Result<std::string> from_config(const std::string& json, const std::string& path) {
  boost::system::error_code code;
  boost::json::value root;
  try {
    root = boost::json::parse(json, code);
  } catch (const std::exception& error) {
    return invalid_argument(path, ": ", error.what());
  }
  if (code) return invalid_argument(path, ": not valid JSON: ", code.message());
  const auto* object = root.if_object();
  if (!object) return invalid_argument(path, ": not a JSON object");
  const auto* entry = object->if_contains("chat_template");
  if (!entry || entry->is_null()) return std::string();
  if (const auto* text = entry->if_string()) return std::string(text->data(), text->size());
  const auto* list = entry->if_array();
  if (!list) return invalid_argument(path, ": chat_template is neither a text nor a list");
  for (const auto& item : *list) {
    const auto* fields = item.if_object();
    const auto* name = fields ? fields->if_contains("name") : nullptr;
    const auto* text = fields ? fields->if_contains("template") : nullptr;
    if (!name || !name->is_string() || !text || !text->is_string()) {
      return invalid_argument(path,
                              ": chat_template: an entry without the texts name and template");
    }
    if (name->get_string() == "default") {
      return std::string(text->get_string().data(), text->get_string().size());
    }
  }
  return std::string();
}

}  // namespace

Result<std::string> find_chat_template(const std::string& model_path) {
  std::error_code code;
  const fs::path path(model_path);
  if (!fs::exists(path, code)) return not_found(model_path, ": no such file or folder");
  if (!fs::is_directory(path, code)) {
    RK_TRY(const GgufFile file, GgufFile::open(model_path));
    if (!file.find("tokenizer.chat_template")) return std::string();
    return file.get_string("tokenizer.chat_template");
  }
  RK_TRY(std::string text, read_text(path / "chat_template.jinja"));
  if (!text.empty()) return text;
  const fs::path config = path / "tokenizer_config.json";
  RK_TRY(const std::string json, read_text(config));
  return json.empty() ? Result<std::string>(std::string()) : from_config(json, config.string());
}

}  // namespace rk::text
