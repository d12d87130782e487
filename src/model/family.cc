#include "model/family.h"

namespace rk::model {

Result<const Family*> find_family(std::string_view name) {
  const Family* known[] = {&llama_family(), &mistral_family(), &qwen2_family(), &qwen3_family()};
  std::string names;
  for (const Family* family : known) {
    if (name == family->name) return family;
    names += cat(names.empty() ? "" : ", ", family->name);
  }
  return unimplemented("model family '", name, "' is not built; known: ", names);
}

}  // namespace rk::model
