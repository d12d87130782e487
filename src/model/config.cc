#include "model/config.h"

#include <sys/stat.h>

#include <algorithm>
#include <boost/json.hpp>
#include <cmath>
#include <fstream>
#include <iterator>
#include <map>
#include <numbers>

#include "tensor/fp8.h"
#include "tensor/quant_block.h"

namespace rk::model {
namespace {

namespace json = boost::json;

// One place reads both sources: a field is a number, a string or a boolean under some name.
struct Limits {
  double low, high;
};
constexpr Limits kCount{1, 1 << 20}, kLayers{1, 4096}, kTokens{1, 1 << 28}, kPositive{1e-12, 1e12};

template <class T>
Status in_range(const std::string& where, const char* field, T value, Limits limits) {
  const auto v = static_cast<double>(value);
  if (v >= limits.low && v <= limits.high) return {};  // false for NaN
  return invalid_argument(where, ": ", field, " is ", value, ", ", limits.low, " to ", limits.high,
                          " is possible");
}

Status check(const ModelConfig& c, const std::string& where) {
  RK_RETURN_IF_ERROR(in_range(where, "number of layers", c.num_layers, kLayers));
  RK_RETURN_IF_ERROR(in_range(where, "hidden size", c.hidden, kCount));
  RK_RETURN_IF_ERROR(in_range(where, "number of attention heads", c.num_heads, {1, 4096}));
  RK_RETURN_IF_ERROR(in_range(where, "number of KV heads", c.num_kv_heads, {1, 4096}));
  RK_RETURN_IF_ERROR(in_range(where, "head dimension", c.head_dim, {1, 4096}));
  RK_RETURN_IF_ERROR(in_range(where, "intermediate size", c.ffn, {1, 1 << 22}));
  RK_RETURN_IF_ERROR(in_range(where, "vocabulary size", c.vocab_size, {1, 1 << 24}));
  RK_RETURN_IF_ERROR(in_range(where, "context length", c.context_tokens, kTokens));
  RK_RETURN_IF_ERROR(in_range(where, "RMSNorm epsilon", c.rms_eps, {0, 1}));
  RK_RETURN_IF_ERROR(in_range(where, "RoPE base", c.rope.base, {1.01, 1e12}));
  RK_RETURN_IF_ERROR(in_range(where, "RoPE factor", c.rope.factor, kPositive));
  RK_RETURN_IF_ERROR(in_range(where, "sliding window", c.sliding_window, {0, 1 << 28}));
  if (c.num_heads % c.num_kv_heads != 0) {
    return invalid_argument(where, ": ", c.num_heads, " attention heads are not a multiple of ",
                            c.num_kv_heads, " KV heads");
  }
  if (c.rope.rotary_dim < 0 || c.rope.rotary_dim > c.head_dim || c.rope.rotary_dim % 2 != 0) {
    return invalid_argument(where, ": rotary dimension ", c.rope.rotary_dim,
                            " of a head dimension of ", c.head_dim);
  }
  const auto kind = c.rope.kind;
  if (kind == RopeConfig::Kind::kLlama3 || kind == RopeConfig::Kind::kYarn) {
    RK_RETURN_IF_ERROR(in_range(where, "RoPE original context", c.rope.original_context, kTokens));
  }
  if (kind == RopeConfig::Kind::kLlama3) {
    RK_RETURN_IF_ERROR(in_range(where, "RoPE low_freq_factor", c.rope.low_freq_factor, kPositive));
    RK_RETURN_IF_ERROR(
        in_range(where, "RoPE high_freq_factor", c.rope.high_freq_factor, kPositive));
  }
  if (kind == RopeConfig::Kind::kYarn) {
    RK_RETURN_IF_ERROR(in_range(where, "RoPE beta_fast", c.rope.beta_fast, kPositive));
    RK_RETURN_IF_ERROR(in_range(where, "RoPE beta_slow", c.rope.beta_slow, kPositive));
    RK_RETURN_IF_ERROR(in_range(where, "RoPE attention_factor", c.rope.attention_factor, {0, 1e6}));
  }
  if (kind == RopeConfig::Kind::kLlama3 && !(c.rope.high_freq_factor > c.rope.low_freq_factor)) {
    return invalid_argument(where, ": llama3 RoPE: high_freq_factor ", c.rope.high_freq_factor,
                            " is not above low_freq_factor ", c.rope.low_freq_factor);
  }
  return {};
}

Status set_rope_kind(const std::string& where, const std::string& type, RopeConfig& rope) {
  if (type.empty() || type == "none" || type == "default" || type == "mrope") {
    rope.kind = RopeConfig::Kind::kDefault;
  } else if (type == "linear") {
    rope.kind = RopeConfig::Kind::kLinear;
  } else if (type == "llama3") {
    rope.kind = RopeConfig::Kind::kLlama3;
  } else if (type == "yarn") {
    rope.kind = RopeConfig::Kind::kYarn;
  } else if (type == "dynamic" || type == "longrope" || type == "su") {
    return unimplemented(where, ": RoPE type '", type,
                         "' depends on the length of the request and cannot be reused");
  } else {
    return invalid_argument(where, ": RoPE type '", type,
                            "' is none of default, linear, llama3, yarn");
  }
  return {};
}

// Integer metadata that may be absent.
Result<int64_t> int_or(const GgufFile& file, const std::string& key, int64_t fallback) {
  if (file.find(key) == nullptr) return fallback;
  return file.get_int(key);
}
Result<double> double_or(const GgufFile& file, const std::string& key, double fallback) {
  if (file.find(key) == nullptr) return fallback;
  return file.get_double(key);
}

template <class T>
Result<T> narrow(Result<int64_t> value, const std::string& where) {
  if (!value.ok()) return value.status();
  if (*value < std::numeric_limits<T>::min() || *value > std::numeric_limits<T>::max()) {
    return invalid_argument(where, ": ", *value, " is out of range");
  }
  return static_cast<T>(*value);
}

std::string commonest_type(const GgufFile& file) {
  std::map<DType, int64_t> bytes;
  for (const auto& tensor : file.tensors()) bytes[tensor.view.dtype] += tensor.view.num_bytes();
  const auto most = std::max_element(
      bytes.begin(), bytes.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
  return most == bytes.end() ? "" : dtype_name(most->first);
}

}  // namespace

Result<ModelConfig> config_from_gguf(const GgufFile& file) {
  const std::string& where = file.name();
  ModelConfig c;
  RK_TRY(const std::string arch, file.get_string("general.architecture"));
  c.family = arch;
  if (arch != "llama" && arch != "mistral" && arch != "qwen2" && arch != "qwen3") {
    return unimplemented(where, ": architecture '", arch, "'; known: llama, mistral, qwen2, qwen3");
  }
  const auto key = [&](const char* name) { return arch + "." + name; };
  RK_TRY(c.num_layers, narrow<int>(file.get_int(key("block_count")), where));
  RK_TRY(c.hidden, file.get_int(key("embedding_length")));
  RK_TRY(c.ffn, file.get_int(key("feed_forward_length")));
  RK_TRY(c.num_heads, narrow<int>(file.get_int(key("attention.head_count")), where));
  RK_TRY(c.num_kv_heads,
         narrow<int>(int_or(file, key("attention.head_count_kv"), c.num_heads), where));
  RK_TRY(c.context_tokens, file.get_int(key("context_length")));
  RK_TRY(const double eps, file.get_double(key("attention.layer_norm_rms_epsilon")));
  c.rms_eps = static_cast<float>(eps);
  if (c.num_heads < 1 || c.hidden < 1) {
    return invalid_argument(where, ": ", c.num_heads, " attention heads, hidden size ", c.hidden);
  }
  if (file.find(key("attention.key_length")) == nullptr && c.hidden % c.num_heads != 0) {
    return invalid_argument(where, ": embedding_length ", c.hidden, " is not a multiple of ",
                            c.num_heads, " attention heads, and there is no key_length");
  }
  RK_TRY(c.head_dim,
         narrow<int>(int_or(file, key("attention.key_length"), c.hidden / c.num_heads), where));
  RK_TRY(c.sliding_window, narrow<int>(int_or(file, key("attention.sliding_window"), 0), where));
  if (c.sliding_window > 0 && arch == "llama") c.family = "mistral";

  RopeConfig& rope = c.rope;
  rope.pairs = arch == "llama" || arch == "mistral" ? kernels::RopePairs::kInterleaved
                                                    : kernels::RopePairs::kHalfSplit;
  RK_TRY(rope.base, double_or(file, key("rope.freq_base"), 10000));
  RK_TRY(rope.rotary_dim,
         narrow<int>(int_or(file, key("rope.dimension_count"), c.head_dim), where));
  std::string type;
  if (file.find(key("rope.scaling.type")) != nullptr) {
    RK_TRY(type, file.get_string(key("rope.scaling.type")));
  }
  RK_RETURN_IF_ERROR(set_rope_kind(where, type, rope));
  RK_TRY(rope.factor, double_or(file, key("rope.scaling.factor"), 1));
  RK_TRY(rope.original_context, int_or(file, key("rope.scaling.original_context_length"), 0));
  if (rope.kind == RopeConfig::Kind::kYarn && rope.original_context == 0) {
    rope.original_context = c.context_tokens;
  }
  if (const auto* freqs = file.find_tensor("rope_freqs.weight")) {
    const int64_t n = freqs->view.num_elements();
    if (n != rope.rotary_dim / 2 || freqs->view.dtype != DType::kF32) {
      return invalid_argument(where, ": rope_freqs.weight is ", freqs->view.describe(), ", f32 [",
                              rope.rotary_dim / 2, "] wanted");
    }
    for (int64_t i = 0; i < n; ++i) {
      const double d = freqs->view.ptr<float>()[i];
      RK_RETURN_IF_ERROR(in_range(where, "rope_freqs.weight", d, kPositive));
      rope.divisors.push_back(d);
    }
  }
  c.qkv_bias = file.find_tensor("blk.0.attn_q.bias") != nullptr;
  c.o_bias = file.find_tensor("blk.0.attn_output.bias") != nullptr;
  c.tied_embeddings = file.find_tensor("output.weight") == nullptr;
  const auto* embedding = file.find_tensor("token_embd.weight");
  if (embedding == nullptr || embedding->view.rank != 2) {
    return invalid_argument(where, ": tensor token_embd.weight is missing or not a matrix");
  }
  c.vocab_size = embedding->view.dim[0];
  c.quantisation = commonest_type(file);
  RK_RETURN_IF_ERROR(check(c, where));
  return c;
}

namespace {

// A JSON object's fields with defaults; the first wrong kind is kept as the error.
class Fields {
 public:
  Fields(const json::object& object, std::string where)
      : object_(object), where_(std::move(where)) {}
  bool has(const char* name) const {
    const json::value* v = object_.if_contains(name);
    return v != nullptr && !v->is_null();
  }
  double number(const char* name, double fallback) {
    if (!has(name)) return fallback;
    const json::value& v = *object_.if_contains(name);
    if (v.is_number()) return v.to_number<double>();
    fail(name, "a number");
    return fallback;
  }
  int64_t integer(const char* name, int64_t fallback) {
    if (!has(name)) return fallback;
    const double v = number(name, 0);
    if (std::abs(v) > 9e15 || v != std::floor(v)) fail(name, "an integer");
    return status_.ok() ? static_cast<int64_t>(v) : fallback;
  }
  int small(const char* name, int64_t fallback) {
    const int64_t v = integer(name, fallback);
    if (std::abs(v) > (int64_t{1} << 30)) fail(name, "a smaller number");
    return status_.ok() ? static_cast<int>(v) : static_cast<int>(fallback);
  }
  bool boolean(const char* name, bool fallback) {
    if (!has(name)) return fallback;
    const json::value& v = *object_.if_contains(name);
    if (v.is_bool()) return v.get_bool();
    fail(name, "a boolean");
    return fallback;
  }
  std::string string(const char* name) {
    if (!has(name)) return {};
    const json::value& v = *object_.if_contains(name);
    if (v.is_string()) return std::string(v.get_string());
    fail(name, "a string");
    return {};
  }
  const json::object* object(const char* name) {
    if (!has(name)) return nullptr;
    const json::value& v = *object_.if_contains(name);
    if (v.is_object()) return &v.get_object();
    fail(name, "an object");
    return nullptr;
  }
  const Status& status() const { return status_; }

 private:
  void fail(const char* name, const char* kind) {
    if (status_.ok()) status_ = invalid_argument(where_, ": field ", name, " is not ", kind);
  }
  const json::object& object_;
  std::string where_;
  Status status_;
};

Status read_rope(const json::object& object, const std::string& where, RopeConfig& rope) {
  Fields f(object, where + ": rope");
  std::string type = f.string("rope_type");
  if (type.empty()) type = f.string("type");
  RK_RETURN_IF_ERROR(set_rope_kind(where, type, rope));
  rope.base = f.number("rope_theta", rope.base);
  rope.factor = f.number("factor", 1);
  rope.low_freq_factor = f.number("low_freq_factor", 1);
  rope.high_freq_factor = f.number("high_freq_factor", 4);
  rope.beta_fast = f.number("beta_fast", 32);
  rope.beta_slow = f.number("beta_slow", 1);
  rope.attention_factor = f.number("attention_factor", 0);
  rope.original_context = f.integer("original_max_position_embeddings", rope.original_context);
  if (f.has("mscale") || f.has("mscale_all_dim")) {
    return unimplemented(where, ": yarn with mscale");
  }
  return f.status();
}

// quantization_config: fp8 in e4m3 is read, by itself or as compressed-tensors name it. Which
// scales a matrix has, its tensors say. True for fp8. Scales of activations are made anew for every
// row.
Result<bool> reads_quantisation(Fields& fields, const std::string& where) {
  const json::object* object = fields.object("quantization_config");
  if (object == nullptr) return false;
  const std::string place = where + ": quantization_config";
  Fields f(*object, place);
  const std::string method = f.string("quant_method"), format = f.string("format");
  const bool compressed = method == "compressed-tensors" && format == "float-quantized";
  if (f.status().ok() && method != "fp8" && !compressed) {
    return unimplemented(place, ": quant_method '", method, "'",
                         format.empty() ? "" : cat(", format '", format, "'"),
                         "; fp8, and compressed-tensors' float-quantized are read");
  }
  const std::string fmt = f.string("fmt");
  RK_RETURN_IF_ERROR(f.status());
  if (!fmt.empty() && fmt != "e4m3") {
    return unimplemented(place, ": fmt '", fmt, "'; e4m3 is read");
  }
  const json::value* block = object->if_contains("weight_block_size");
  if (block == nullptr || block->is_null()) return true;
  if (*block != json::value{kFp8Block, kFp8Block}) {
    return unimplemented(place, ": weight_block_size ", json::serialize(*block), "; [", kFp8Block,
                         ",", kFp8Block, "] is read");
  }
  return true;
}

}  // namespace

Result<ModelConfig> config_from_json(std::string_view text, const std::string& where) {
  json::error_code error;
  json::parse_options options;
  options.max_depth = 32;
  const json::value value =
      json::parse(json::string_view(text.data(), text.size()), error, {}, options);
  if (error) return invalid_argument(where, ": not JSON: ", error.message());
  if (!value.is_object()) return invalid_argument(where, ": not a JSON object");
  Fields f(value.get_object(), where);
  ModelConfig c;
  c.family = f.string("model_type");
  if (c.family != "llama" && c.family != "mistral" && c.family != "qwen2" && c.family != "qwen3") {
    return unimplemented(where, ": model_type '", c.family,
                         "'; known: llama, mistral, qwen2, qwen3");
  }
  c.num_layers = f.small("num_hidden_layers", 0);
  c.hidden = f.integer("hidden_size", 0);
  c.num_heads = f.small("num_attention_heads", 0);
  c.num_kv_heads = f.small("num_key_value_heads", c.num_heads);
  c.head_dim = f.small("head_dim", c.num_heads > 0 ? c.hidden / c.num_heads : 0);
  if (!f.has("head_dim") && c.num_heads > 0 && c.hidden % c.num_heads != 0) {
    return invalid_argument(where, ": hidden_size ", c.hidden, " is not a multiple of ",
                            c.num_heads, " attention heads, and there is no head_dim");
  }
  c.ffn = f.integer("intermediate_size", 0);
  c.vocab_size = f.integer("vocab_size", 0);
  c.context_tokens = f.integer("max_position_embeddings", 0);
  c.rms_eps = static_cast<float>(f.number("rms_norm_eps", 1e-6));
  c.tied_embeddings = f.boolean("tie_word_embeddings", false);
  const bool attention_bias = f.boolean("attention_bias", false);
  c.qkv_bias = attention_bias || c.family == "qwen2";
  c.o_bias = attention_bias && c.family == "llama";
  const bool takes_window = c.family == "mistral" || f.boolean("use_sliding_window", false);
  // transformers gives Mistral a window of 4096 unless the file says null.
  const bool silent = value.get_object().if_contains("sliding_window") == nullptr;
  const int64_t unsaid = c.family == "mistral" && silent ? 4096 : 0;
  c.sliding_window = takes_window ? f.small("sliding_window", unsaid) : 0;
  RK_TRY(const bool fp8, reads_quantisation(f, where));
  if (f.boolean("mlp_bias", false)) return unimplemented(where, ": mlp_bias is true");
  if (const std::string act = f.string("hidden_act"); !act.empty() && act != "silu") {
    return unimplemented(where, ": hidden_act '", act, "'; silu is built");
  }
  if (c.sliding_window > 0 && c.family != "mistral") {
    return unimplemented(where, ": a sliding window for ", c.family);
  }
  c.rope.base = f.number("rope_theta", 10000);
  c.rope.original_context = c.context_tokens;
  for (const char* name : {"rope_scaling", "rope_parameters"}) {
    if (const json::object* rope = f.object(name)) {
      RK_RETURN_IF_ERROR(read_rope(*rope, where, c.rope));
    }
  }
  double partial = f.number("partial_rotary_factor", 1.0);
  if (const json::object* rope = f.object("rope_parameters")) {  // transformers 5 keeps it there
    Fields nested(*rope, where + ": rope_parameters");
    partial = nested.number("partial_rotary_factor", partial);
    RK_RETURN_IF_ERROR(nested.status());
  }
  if (!(partial > 0 && partial <= 1)) {
    return invalid_argument(where, ": partial_rotary_factor is ", partial, ", 0 to 1 is possible");
  }
  c.rope.rotary_dim = static_cast<int>(c.head_dim * partial);
  RK_RETURN_IF_ERROR(f.status());
  RK_RETURN_IF_ERROR(check(c, where));
  if (fp8) c.quantisation = "fp8";
  if (c.quantisation.empty()) c.quantisation = f.string("torch_dtype");
  if (c.quantisation.empty()) c.quantisation = f.string("dtype");
  return c;
}

Result<ModelConfig> read_config(const std::string& path) {
  struct stat info {};
  if (stat(path.c_str(), &info) != 0) return not_found(path, ": no such model file or folder");
  const bool one_file = path.size() > 12 && path.ends_with(".safetensors");
  if (!S_ISDIR(info.st_mode) && !one_file) {
    RK_TRY(const GgufFile file, GgufFile::open(path));
    return config_from_gguf(file);
  }
  const std::string folder = one_file ? path.substr(0, path.find_last_of('/') == std::string::npos
                                                           ? 0
                                                           : path.find_last_of('/') + 1)
                                      : path + "/";
  const std::string config = folder + "config.json";
  std::ifstream in(config, std::ios::binary);
  if (!in) return not_found(config, ": no such file");
  std::string text(size_t{1} << 20, '\0');
  in.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<size_t>(in.gcount()));
  if (text.size() == size_t{1} << 20) return invalid_argument(config, ": larger than 1 MiB");
  return config_from_json(text, config);
}

std::vector<double> rope_inv_freq(const RopeConfig& rope) {
  using std::numbers::pi;
  const int half = rope.rotary_dim / 2;
  const double dim = rope.rotary_dim, context = static_cast<double>(rope.original_context);
  std::vector<double> out;
  for (int i = 0; i < half; ++i) {
    double theta = std::pow(rope.base, -2.0 * i / dim);
    if (!rope.divisors.empty()) theta /= rope.divisors[static_cast<size_t>(i)];
    switch (rope.kind) {
      case RopeConfig::Kind::kDefault:
        break;
      case RopeConfig::Kind::kLinear:
        theta /= rope.factor;
        break;
      case RopeConfig::Kind::kLlama3: {
        const double wave = 2 * pi / theta;
        if (wave > context / rope.low_freq_factor) {
          theta /= rope.factor;
        } else if (wave >= context / rope.high_freq_factor) {
          const double s = (context / wave - rope.low_freq_factor) /
                           (rope.high_freq_factor - rope.low_freq_factor);
          theta = (1 - s) * theta / rope.factor + s * theta;
        }
        break;
      }
      case RopeConfig::Kind::kYarn: {
        const auto bound = [&](double turns) {
          return dim * std::log(context / (turns * 2 * pi)) / (2 * std::log(rope.base));
        };
        const double low = std::max(std::floor(bound(rope.beta_fast)), 0.0);
        double high = std::min(std::ceil(bound(rope.beta_slow)), dim - 1);
        if (high == low) high += 0.001;
        const double ramp = std::clamp((i - low) / (high - low), 0.0, 1.0);
        theta = ramp * theta / rope.factor + (1 - ramp) * theta;
        break;
      }
    }
    out.push_back(theta);
  }
  return out;
}

double rope_magnitude(const RopeConfig& rope) {
  if (rope.kind != RopeConfig::Kind::kYarn) return 1;
  if (rope.attention_factor > 0) return rope.attention_factor;
  return rope.factor > 1 ? 0.1 * std::log(rope.factor) + 1 : 1;
}

}  // namespace rk::model
