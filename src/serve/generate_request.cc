#include "serve/generate_request.h"

#include <boost/json.hpp>
#include <chrono>
#include <cmath>
#include <limits>
#include <random>

namespace rk::serve {
namespace json = boost::json;
namespace {

constexpr size_t kMaxStops = 16;
constexpr size_t kMaxStopBytes = 1024;
constexpr int kMaxLogprobs = 20;
constexpr int kMaxChoices = 16;
constexpr int kDefaultCompletionTokens = 16;  // as OpenAI's
constexpr int kMaxInt = std::numeric_limits<int>::max();

void read_choices(JsonFields& fields, GenerateRequest& out) {
  fields.integer("n", 1, kMaxChoices, out.num_choices);
  int best_of = out.num_choices;
  fields.integer("best_of", -kMaxInt, kMaxInt, best_of);
  if (best_of != out.num_choices) {
    fields.fail("best_of", cat(best_of, " is not n = ", out.num_choices,
                               ": answers are not chosen from, all are given"));
  }
}

void read_stop(JsonFields& fields, const ModelView& model, GenerateRequest& out) {
  fields.strings("stop", kMaxStops, kMaxStopBytes, out.completion.stop);
  for (const std::string& stop : out.completion.stop) {
    if (stop.empty()) fields.fail("stop", "a stop string is empty");
  }
  fields.boolean("include_stop_str_in_output", out.completion.include_stop);
  bool ignore_eos = false;
  fields.boolean("ignore_eos", ignore_eos);
  if (!ignore_eos) out.engine.stop_tokens = model.tokenizer.eos();
  bool skip_special = true;
  fields.boolean("skip_special_tokens", skip_special);
  out.completion.skip_special = skip_special;
  const json::value* ids = fields.find("stop_token_ids");
  if (ids == nullptr) return;
  if (!ids->is_array() || ids->get_array().size() > 64) {
    return fields.fail("stop_token_ids", "an array of at most 64 token ids is wanted");
  }
  for (const json::value& id : ids->get_array()) {
    const int64_t* number = id.if_int64();
    if (number == nullptr || *number < 0 || *number >= model.tokenizer.vocab_size()) {
      return fields.fail("stop_token_ids",
                         cat("an id is outside 0..", model.tokenizer.vocab_size() - 1));
    }
    out.engine.stop_tokens.push_back(static_cast<int32_t>(*number));
  }
}

void read_logit_bias(JsonFields& fields, const ModelView& model, kernels::SampleOptions& out) {
  const json::object* bias = fields.object("logit_bias");
  if (bias == nullptr) return;
  const int64_t vocab = model.tokenizer.vocab_size();
  for (const auto& [key, value] : *bias) {
    int64_t id = 0;
    const bool digits = !key.empty() && key.size() <= 9 &&
                        key.find_first_not_of("0123456789") == json::string_view::npos;
    if (digits) id = std::stoll(std::string(key));
    if (!digits || id >= vocab) {
      return fields.fail("logit_bias", cat(json_quote(std::string_view(key.data(), key.size())),
                                           " is no token id in 0..", vocab - 1));
    }
    const double number =
        value.is_number() ? value.to_number<double>() : std::numeric_limits<double>::quiet_NaN();
    if (!(number >= -100 && number <= 100)) {
      return fields.fail("logit_bias", cat("the value of ", id, " is no number in -100..100"));
    }
    out.logit_bias.emplace_back(static_cast<int32_t>(id), static_cast<float>(number));
  }
}

void read_sampling(JsonFields& fields, const ModelView& model, kernels::SampleOptions& out) {
  out.temperature = 1.0F;
  fields.number("temperature", 0, 2, out.temperature);
  if (out.temperature < 1e-4F) out.temperature = 0;  // greedy, before a division overflows
  fields.number("top_p", 0, 1, out.top_p);
  if (out.top_p <= 0) fields.fail("top_p", "0 is outside (0, 1]");
  fields.number("min_p", 0, 1, out.min_p);
  if (out.min_p >= 1) fields.fail("min_p", "1 is outside [0, 1)");
  fields.integer("top_k", -1, kMaxInt, out.top_k);
  if (out.top_k < 0) out.top_k = 0;
  fields.number("repetition_penalty", 0.01, 100, out.repetition_penalty);
  fields.number("presence_penalty", -2, 2, out.presence_penalty);
  fields.number("frequency_penalty", -2, 2, out.frequency_penalty);
  int64_t seed = 0;
  if (fields.has("seed")) {
    fields.integer("seed", std::numeric_limits<int64_t>::min(), std::numeric_limits<int64_t>::max(),
                   seed);
    out.seed = static_cast<uint64_t>(seed);
  } else {
    std::random_device device;
    out.seed = (uint64_t{device()} << 32) | device();
  }
  read_logit_bias(fields, model, out);
}

void read_logprobs(JsonFields& fields, GenerateRequest& out) {
  int count = -1;
  if (out.chat) {
    bool wanted = false;
    fields.boolean("logprobs", wanted);
    if (wanted) count = 0;
    if (fields.has("top_logprobs")) {
      fields.integer("top_logprobs", 0, kMaxLogprobs, count);
      if (!wanted) fields.fail("top_logprobs", "needs \"logprobs\": true");
    }
  } else if (fields.has("logprobs")) {
    fields.integer("logprobs", 0, kMaxLogprobs, count);
  }
  out.engine.num_logprobs = count;
}

void read_streaming(JsonFields& fields, GenerateRequest& out) {
  fields.boolean("stream", out.stream);
  const json::object* options = fields.object("stream_options");
  if (options == nullptr) return;
  if (!out.stream) return fields.fail("stream_options", "only allowed with \"stream\": true");
  JsonFields inner(*options, "stream_options.");
  inner.boolean("include_usage", out.include_usage);
  fields.adopt(inner);
}

void read_company(JsonFields& redknot, const ModelInfo& info, engine::Request& out) {
  std::string name;
  if (redknot.has("company")) redknot.string("company", 64, name);
  if (!redknot.ok()) return;
  if (redknot.has("company") && name != "none" && name != "neutral") {
    return redknot.fail("company", cat(json_quote(name), " is none of neutral, none"));
  }
  const Company none;
  const Company& company = name.empty() ? info.company : name == "none" ? none : info.neutral;
  out.company = company.tokens;
  out.company_pieces = company.pieces;
}

// "mode: 'x' is none of ..." without the name, which the field brings.
std::string without_name(std::string_view name, const std::string& message) {
  const std::string prefix = cat(name, ": ");
  return message.starts_with(prefix) ? message.substr(prefix.size()) : message;
}

// {"mode", "k", "ratio", "select", "company", "reuse", "quality", "order", "guardian", "write"}:
// exact rows unless the caller names a mode or a quality.
void read_redknot(JsonFields& fields, const ModelInfo& info, GenerateRequest& out) {
  out.engine.mode = engine::Mode::kPrefix;
  out.engine.company = info.company.tokens;
  out.engine.company_pieces = info.company.pieces;
  const json::object* object = fields.object("redknot");
  if (object == nullptr) return;
  JsonFields inner(*object, "redknot.");
  std::string mode, reuse, quality, order, select;
  inner.string("mode", 64, mode);
  inner.string("reuse", 64, reuse);
  inner.string("quality", 64, quality);
  inner.string("order", 64, order);
  inner.integer("k", 0, 1 << 20, out.engine.boundary_rows);
  inner.number("ratio", 0, 1, out.engine.selective_ratio);
  inner.string("select", 64, select);
  inner.boolean("guardian", out.engine.guardian);
  inner.boolean("write", out.engine.cache_write);
  read_company(inner, info, out.engine);
  if (inner.ok() && !select.empty()) {
    const auto units = engine::parse_select(select);
    if (!units.ok()) inner.fail("select", without_name("select", units.status().message()));
    if (units.ok()) out.engine.select = units.value();
  }
  if (inner.ok() && !mode.empty()) {
    const Status parsed = engine::read_mode(mode, out.engine);
    if (!parsed.ok()) inner.fail("mode", without_name("mode", parsed.message()));
  }
  if (inner.ok() && !quality.empty()) {
    const auto level = engine::parse_level(quality);
    if (!level.ok()) inner.fail("quality", without_name("quality", level.status().message()));
    if (level.ok()) out.engine.quality = level.value();
    if (mode.empty() && (reuse.empty() || reuse == "auto")) out.engine.mode = engine::Mode::kAuto;
  }
  if (!order.empty() && order != "keep" && order != "any") {
    inner.fail("order", cat(json_quote(order), " is none of keep, any"));
  }
  out.engine.any_order = order == "any";
  const engine::Mode asked = out.engine.mode;
  const bool approximate = asked != engine::Mode::kDense && asked != engine::Mode::kPrefix;
  if (reuse == "off") {
    if (approximate) inner.fail("reuse", cat("\"off\" contradicts the mode \"", mode, "\""));
    out.engine.mode = engine::Mode::kDense;
    out.engine.cache_read = out.engine.cache_write = false;
  } else if (!reuse.empty() && reuse != "auto" && reuse != "exact") {
    inner.fail("reuse", cat(json_quote(reuse), " is none of auto, exact, off"));
  } else if (reuse == "exact" && approximate) {
    inner.fail("reuse", cat("\"exact\" contradicts the mode \"", mode, "\""));
  }
  fields.adopt(inner);
}

// Things that would change the answer if they were silently ignored.
void refuse_unsupported(JsonFields& fields) {
  const json::value* tools = fields.find("tools");
  if (tools != nullptr && !(tools->is_array() && tools->get_array().empty())) {
    fields.fail("tools", "not supported yet");
  }
  if (fields.has("functions")) fields.fail("functions", "not supported yet");
  if (const json::object* format = fields.object("response_format")) {
    JsonFields inner(*format, "response_format.");
    std::string type;
    inner.string("type", 64, type);
    if (type != "text")
      inner.fail("type", cat(json_quote(type), ": only \"text\" is supported yet"));
    fields.adopt(inner);
  }
  for (const char* name : {"guided_json", "guided_regex", "guided_choice", "guided_grammar",
                           "structured_outputs", "grammar", "json_schema", "prompt_logprobs"}) {
    if (fields.has(name)) fields.fail(name, "not supported yet");
  }
  if (fields.has("chat_template")) fields.fail("chat_template", "a request cannot bring its own");
  if (const json::value* suffix = fields.find("suffix")) {
    if (!suffix->is_string() || !suffix->get_string().empty()) {
      fields.fail("suffix", "not supported");
    }
  }
}

void read_common(JsonFields& fields, const ModelView& model, GenerateRequest& out) {
  refuse_unsupported(fields);
  read_choices(fields, out);
  read_streaming(fields, out);
  read_stop(fields, model, out);
  read_sampling(fields, model, out.engine.sampling);
  read_logprobs(fields, out);
  read_redknot(fields, model.info, out);
  fields.string("cache_salt", 1024, out.cache_salt);
}

bool finish(JsonFields& fields, ApiError& error) {
  if (fields.ok()) return true;
  error = {400, fields.status().message(), fields.param(), "invalid_value"};
  return false;
}

// max_tokens and min_tokens against the room that the prompt leaves.
bool read_room(JsonFields& fields, const ModelView& model, GenerateRequest& out, ApiError& error) {
  int64_t prompt = 0;
  for (const engine::PromptSpan& span : out.engine.spans) {
    prompt += static_cast<int64_t>(span.tokens.size());
  }
  const int64_t context = model.info.context_tokens;
  const char* field = out.chat ? "messages" : "prompt";
  if (prompt == 0) {
    error = {400, cat(field, ": the prompt has no tokens"), field, "invalid_value"};
    return false;
  }
  if (prompt >= context) {
    error = {400,
             cat("this model's maximum context length is ", context, " tokens; the prompt has ",
                 prompt, ", which leaves no room for an answer"),
             field, "context_length_exceeded"};
    return false;
  }
  const char* name =
      out.chat && fields.has("max_completion_tokens") ? "max_completion_tokens" : "max_tokens";
  const auto room = static_cast<int>(std::min<int64_t>(context - prompt, kMaxInt));
  int tokens = out.chat ? room : std::min(room, kDefaultCompletionTokens);
  fields.integer(name, 1, kMaxInt, tokens);
  if (fields.ok() && tokens > room) {
    error = {400,
             cat("this model's maximum context length is ", context, " tokens; the prompt has ",
                 prompt, " and ", name, " asks for ", tokens),
             name, "context_length_exceeded"};
    return false;
  }
  out.engine.max_tokens = tokens;
  fields.integer("min_tokens", 0, kMaxInt, out.engine.min_tokens);
  if (out.engine.min_tokens > tokens) {
    fields.fail("min_tokens", cat(out.engine.min_tokens, " is more than ", name, " = ", tokens));
  }
  return finish(fields, error);
}

// Scalars for the template ("enable_thinking"); names that the renderer itself sets are refused.
std::string read_template_kwargs(JsonFields& fields) {
  const json::object* kwargs = fields.object("chat_template_kwargs");
  if (kwargs == nullptr) return "";
  if (kwargs->size() > 16) fields.fail("chat_template_kwargs", "more than 16 fields");
  for (const auto& [key, value] : *kwargs) {
    const bool name =
        !key.empty() && key.size() <= 64 &&
        key.find_first_not_of("abcdefghijklmnopqrstuvwxyz_0123456789") == json::string_view::npos;
    const bool reserved = key == "messages" || key == "documents" || key == "tools" ||
                          key == "tokenize" || key == "chat_template" || key == "bos_token" ||
                          key == "eos_token" || key == "add_generation_prompt" ||
                          key == "raise_exception" || key == "strftime_now" || key == "namespace" ||
                          key == "range" || key == "conversation" || key.starts_with("_");
    const bool scalar = value.is_bool() || value.is_int64() || value.is_null() ||
                        (value.is_string() && value.get_string().size() <= 1024);
    if (!name || reserved || !scalar) {
      fields.fail("chat_template_kwargs",
                  cat(json_quote(std::string_view(key.data(), key.size())),
                      ": only plain names that are not reserved, with scalar values"));
    }
  }
  return fields.ok() ? json::serialize(*kwargs) : "";
}

// `prompt`: a string, a list with one string, token ids, or a list with one list of them.
struct PromptValue {
  bool is_ids = false;
  std::string text;
  std::vector<int32_t> ids;
};
PromptValue read_prompt(JsonFields& fields, const ModelView& model) {
  PromptValue out;
  const json::value* value = fields.find("prompt");
  if (!fields.ok()) return out;
  if (value == nullptr) return fields.fail("prompt", "missing"), out;
  const auto nested = [](const json::value& item) { return item.is_string() || item.is_array(); };
  if (value->is_array() && !value->get_array().empty() && nested(value->get_array()[0])) {
    const size_t count = value->get_array().size();
    if (count != 1) return fields.fail("prompt", cat(count, " prompts, the limit is 1")), out;
    value = &value->get_array()[0];
  }
  if (value->is_string()) {
    out.text = std::string(value->get_string());
    return out;
  }
  if (!value->is_array()) {
    return fields.fail("prompt", cat(json_kind(*value), ", a string or token ids are wanted")), out;
  }
  out.is_ids = true;
  const int64_t vocab = model.tokenizer.vocab_size();
  const json::array& items = value->get_array();
  for (size_t i = 0; i < items.size(); ++i) {
    const int64_t* id = items[i].if_int64();
    if (id == nullptr || *id < 0 || *id >= vocab) {
      fields.fail(cat("prompt[", i, "]"),
                  cat(items[i].is_number() ? json::serialize(items[i]) : json_kind(items[i]),
                      " is no token id in 0..", vocab - 1));
      return out;
    }
    out.ids.push_back(static_cast<int32_t>(*id));
  }
  return out;
}

bool take_spans(Result<std::vector<engine::PromptSpan>> spans, const char* param,
                GenerateRequest& out, ApiError& error) {
  if (!spans.ok()) {
    error = api_error(spans.status(), param);
    if (spans.code() == Code::kExhausted) error.status = 400;  // a bound of the template's
    return false;
  }
  out.engine.spans = std::move(spans).value();
  return true;
}

}  // namespace

bool check_model(JsonFields& fields, const ModelInfo& info, ApiError& error) {
  std::string model;
  fields.string("model", 1024, model);
  if (!finish(fields, error)) return false;
  if (model.empty() || model == info.id) return true;
  error = {
      404,
      cat("the model ", json_quote(model), " is not served here; ", json_quote(info.id), " is"),
      "model", "model_not_found"};
  return false;
}

bool parse_chat(std::string_view body, const ModelView& model, GenerateRequest& out,
                ApiError& error) {
  const Result<JsonBody> parsed = JsonBody::parse(body);
  if (!parsed.ok()) return error = {400, parsed.status().message(), "", "invalid_json"}, false;
  JsonFields fields(parsed->object());
  if (!check_model(fields, model.info, error)) return false;
  out.chat = true;
  read_common(fields, model, out);
  std::vector<text::ChatMessage> messages;
  std::vector<Document> documents;
  read_messages(fields, messages, documents);
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  text::ChatTemplateOptions options =
      chat_options(model.tokenizer, std::chrono::duration_cast<std::chrono::seconds>(now).count());
  options.extra_json = read_template_kwargs(fields);
  if (!finish(fields, error)) return false;
  if (model.chat == nullptr) {
    error = {400, "this model has no chat template; use /v1/completions", "messages",
             "unsupported"};
    return false;
  }
  return take_spans(chat_prompt(model.tokenizer, *model.chat, messages, documents, options),
                    "messages", out, error) &&
         read_room(fields, model, out, error);
}

bool parse_completion(std::string_view body, const ModelView& model, GenerateRequest& out,
                      ApiError& error) {
  const Result<JsonBody> parsed = JsonBody::parse(body);
  if (!parsed.ok()) return error = {400, parsed.status().message(), "", "invalid_json"}, false;
  JsonFields fields(parsed->object());
  if (!check_model(fields, model.info, error)) return false;
  read_common(fields, model, out);
  PromptValue prompt = read_prompt(fields, model);
  std::vector<Document> documents;
  read_documents(fields, documents);
  bool echo = false;
  fields.boolean("echo", echo);
  if (echo && out.engine.num_logprobs >= 0) {
    fields.fail("echo", "not together with logprobs: the prompt's own are not computed");
  }
  if (prompt.is_ids && !documents.empty()) {
    fields.fail("documents", "not together with token ids");
  }
  if (!finish(fields, error)) return false;
  if (echo) out.echo = prompt.is_ids ? model.tokenizer.decode(prompt.ids, true) : prompt.text;
  if (prompt.is_ids) {
    out.engine.spans.push_back({std::move(prompt.ids), false});
  } else if (!take_spans(plain_prompt(model.tokenizer, prompt.text, documents), "prompt", out,
                         error)) {
    return false;
  }
  return read_room(fields, model, out, error);
}

}  // namespace rk::serve
