#include <boost/json.hpp>
#include <iostream>
#include <map>

#include "kv/visible.h"
#include "main/cli.h"
#include "main/output.h"
#include "main/progress.h"
#include "main/pull.h"
#include "model/config.h"
#include "model/decoder.h"
#include "model/weight_files.h"
#include "tensor/buffer.h"
#include "tensor/gguf.h"
#include "tensor/safetensors.h"

namespace rk::cli {
namespace {

namespace json = boost::json;

struct TypeUse {
  int64_t tensors = 0, bytes = 0;
};

template <class Tensors>
std::map<std::string, TypeUse> count_types(const Tensors& tensors) {
  std::map<std::string, TypeUse> types;
  for (const auto& t : tensors) {
    TypeUse& use = types[dtype_name(t.view.dtype)];
    ++use.tensors;
    use.bytes += t.view.num_bytes();
  }
  return types;
}

Result<std::map<std::string, TypeUse>> types_of(const model::WeightFiles& files) {
  if (files.gguf() != nullptr) return count_types(files.gguf()->tensors());
  RK_TRY(const Safetensors st, Safetensors::open(files.path()));
  return count_types(st.tensors());
}

std::string rope_text(const model::RopeConfig& r) {
  using Kind = model::RopeConfig::Kind;
  const char* kind = r.kind == Kind::kDefault  ? "default"
                     : r.kind == Kind::kLinear ? "linear"
                     : r.kind == Kind::kLlama3 ? "llama3"
                                               : "yarn";
  return cat(kind, ", base ", r.base, r.kind == Kind::kDefault ? "" : cat(", factor ", r.factor),
             ", ", r.rotary_dim, " of a head's elements turn");
}

Status inspect(const std::string& name, const CommonFlags& common) {
  RK_TRY(const std::string path, resolve_model(name));
  RK_TRY(const model::WeightFiles files, model::WeightFiles::open(path));
  RK_TRY(const model::ModelConfig c, model::read_config(path));
  RK_TRY(const auto types, types_of(files));
  const DType kv_dtype = DType::kF16;
  const int64_t kv_token =
      2 * int64_t{c.num_layers} * c.num_kv_heads * dtype_bytes(kv_dtype, c.head_dim);
  const int64_t weights = model::estimate_memory_bytes(files, c, {});
  const int64_t full = weights + kv_token * c.context_tokens;
  const int64_t available = available_memory_bytes();
  if (common.json) {
    json::object tensors;
    for (const auto& [type, use] : types) {
      tensors[type] = json::object{{"tensors", use.tensors}, {"bytes", use.bytes}};
    }
    std::cout << json::object{{"path", path},
                              {"file_bytes", files.num_bytes()},
                              {"family", c.family},
                              {"layers", c.num_layers},
                              {"hidden", c.hidden},
                              {"heads", c.num_heads},
                              {"kv_heads", c.num_kv_heads},
                              {"head_dim", c.head_dim},
                              {"ffn", c.ffn},
                              {"vocab", c.vocab_size},
                              {"context", c.context_tokens},
                              {"sliding_window", c.sliding_window},
                              {"rope", rope_text(c.rope)},
                              {"tied_embeddings", c.tied_embeddings},
                              {"quantisation", c.quantisation},
                              {"tensors", std::move(tensors)},
                              {"kv_dtype", dtype_name(kv_dtype)},
                              {"kv_bytes_per_token", kv_token},
                              {"memory_bytes", weights},
                              {"memory_bytes_full_context", full},
                              {"memory_available_bytes", available}}
              << "\n";
    return {};
  }
  std::string type_text;
  for (const auto& [type, use] : types) {
    type_text += cat(type_text.empty() ? "" : ", ", use.tensors, " ", type, " (",
                     human_bytes(use.bytes), ")");
  }
  print_fields({
      {"path", path},
      {"files", human_bytes(files.num_bytes())},
      {"family", c.family},
      {"layers", cat(c.num_layers)},
      {"heads", cat(c.num_heads, " query, ", c.num_kv_heads, " KV, ", c.head_dim, " wide")},
      {"hidden / ffn", cat(c.hidden, " / ", c.ffn)},
      {"vocabulary", cat(c.vocab_size, c.tied_embeddings ? ", embedding is also the output" : "")},
      {"context", cat(c.context_tokens, " tokens",
                      c.sliding_window > 0 ? cat(", sliding window ", c.sliding_window) : "")},
      {"rope", rope_text(c.rope)},
      {"quantisation", c.quantisation},
      {"tensors", type_text},
      {"KV per token",
       cat(human_bytes(kv_token), " (", dtype_name(kv_dtype), ", all heads global)")},
      {"memory here",
       cat(human_bytes(weights), " for weights and workspace, ", human_bytes(full), " with ",
           c.context_tokens, " tokens of KV; ", human_bytes(available), " available")},
  });
  if (weights > available)
    std::cerr << "this model does not fit into the memory that is available\n";
  return {};
}

}  // namespace

/// redknot inspect: what a model's files hold and what it needs here; loads no weights.
Command cmd_inspect() {
  return {
      .name = "inspect",
      .summary = "what a model's files hold, and the memory it needs here",
      .examples = "  redknot inspect smollm2\n  redknot inspect model.gguf --json\n",
      .uses = kUsesJson,
      .declare = [](Flags& flags, const CommonFlags& common) -> Action {
        auto model = std::make_shared<std::string>(common.model);
        flags.positional("MODEL", *model, "path, or a name that `pull` knows (default smollm2)",
                         false);
        return {[model, &common] { return inspect(*model, common); }};
      },
  };
}

}  // namespace rk::cli
