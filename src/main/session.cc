#include "main/session.h"

#include <malloc.h>
#include <sys/stat.h>
#include <unistd.h>
#include <utf8proc.h>

#include <algorithm>
#include <ctime>
#include <fstream>
#include <iostream>
#include <iterator>

#include "base/clock.h"
#include "base/log.h"
#include "main/progress.h"
#include "main/pull.h"

namespace rk::cli {

model::CardWeights card_weights(const CommonFlags& common) {
  if (common.card_weights == "fp8") return model::CardWeights::kFp8;
  return common.card_weights == "bf16" ? model::CardWeights::kBf16 : model::CardWeights::kAuto;
}

Result<engine::Engine::Options> engine_options(const CommonFlags& common, const std::string& path) {
  engine::Engine::Options options;
  RK_TRY(options.device, parse_device(common.device));
  options.card_weights = card_weights(common);
  options.fit = common.fit;
  options.card = common.card;
  options.card_folders = card_folders();
  if (const auto directory = model_directory(); directory.ok()) options.cache_dir = *directory;
  options.on_memory_plan = [](const std::string& plan) { std::cerr << plan << "\n"; };
  options.model = path;
  options.plan = common.plan;
  options.threads = common.threads;
  options.forced = common.kernels;
  RK_TRY(options.kv_dtype, parse_dtype(common.kv_dtype));
  RK_TRY(options.store_format, kv::parse_row_format(common.kv_store));
  options.store_bytes = common.kv_store_bytes;
  return options;
}

Result<Session> Session::open(const CommonFlags& common, int64_t context_tokens,
                              const engine::ShadowOptions& shadow) {
  Session session;
  Progress progress(common.json);
  RK_TRY(session.path, resolve_or_pull_model(common.model, progress));
  const double begin_ms = now_ms();
  RK_TRY(auto options, engine_options(common, session.path));
  options.context_tokens = context_tokens;
  options.shadow = shadow;
  RK_TRY(session.tokenizer, text::Tokenizer::load(session.path));
  RK_TRY(session.company, serve::read_company(*session.tokenizer, common.company));
  malloc_trim(0);  // what reading the vocabulary took must not count beside the weights
  RK_TRY(session.engine, engine::Engine::create(options));
  malloc_trim(0);
  RK_TRY(const std::string source, text::find_chat_template(session.path));
  if (!source.empty()) {
    auto parsed = text::ChatTemplate::parse(source);
    if (parsed.ok()) {
      session.chat = std::move(parsed).value();
    } else {
      log::warn(session.path, ": chat template: ", parsed.status().message(),
                "; plain prompts are used");
    }
  }
  session.load_ms = now_ms() - begin_ms;
  return session;
}

Result<std::vector<engine::PromptSpan>> Session::prompt(
    const std::string& question, const std::vector<serve::Document>& documents) const {
  if (!chat) return serve::plain_prompt(*tokenizer, question, documents);
  return serve::chat_prompt(*tokenizer, *chat, {{"user", question}}, documents,
                            serve::chat_options(*tokenizer, std::time(nullptr)));
}

namespace {

class Collector : public serve::CompletionSink {
 public:
  Collector(Answer& answer, const std::function<void(const std::string&)>& on_text)
      : answer_(answer), on_text_(on_text) {}
  bool on_delta(const serve::CompletionDelta& delta) override {
    answer_.text += delta.text;
    if (on_text_ && !delta.text.empty()) on_text_(delta.text);
    return true;
  }
  void on_end(const serve::CompletionEnd& end) override {
    answer_.finish = end.reason;
    answer_.stats = end.stats;
    status = end.status;
  }
  Status status;

 private:
  Answer& answer_;
  const std::function<void(const std::string&)>& on_text_;
};

// Completion turns tokens into text; the ids are kept beside it.
class Recorder : public engine::Listener {
 public:
  Recorder(serve::Completion& inner, std::vector<int32_t>& tokens)
      : inner_(inner), tokens_(tokens) {}
  bool on_token(const engine::TokenEvent& event) override {
    tokens_.push_back(event.token);
    return inner_.on_token(event);
  }
  void on_done(const engine::Outcome& outcome) override { inner_.on_done(outcome); }

 private:
  serve::Completion& inner_;
  std::vector<int32_t>& tokens_;
};

}  // namespace

Result<Answer> answer(Session& session, const engine::Request& request,
                      const std::function<void(const std::string&)>& on_text) {
  Answer out;
  const auto sink = std::make_shared<Collector>(out, on_text);
  serve::Completion completion(*session.tokenizer, {}, sink);
  Recorder recorder(completion, out.tokens);
  session.engine->run(request, 0, recorder);
  RK_RETURN_IF_ERROR(sink->status);
  return out;
}

Result<serve::Document> read_document(const std::string& path) {
  constexpr int64_t kLimit = 64 << 20;
  struct stat info {};
  if (stat(path.c_str(), &info) != 0) return not_found(path, ": no such file");
  if (!S_ISREG(info.st_mode)) return invalid_argument(path, ": not a regular file");
  if (info.st_size > kLimit) {
    return invalid_argument(path, ": ", info.st_size, " bytes, a document may have ", kLimit);
  }
  std::ifstream in(path, std::ios::binary);
  serve::Document document;
  document.text.assign(std::istreambuf_iterator<char>(in), {});
  const size_t slash = path.find_last_of('/');
  document.title = slash == std::string::npos ? path : path.substr(slash + 1);
  if (document.text.find_first_not_of(" \t\r\n") == std::string::npos) {
    return invalid_argument(path, ": the document is empty");
  }
  const auto* bytes = reinterpret_cast<const utf8proc_uint8_t*>(document.text.data());
  const auto size = static_cast<utf8proc_ssize_t>(document.text.size());
  for (utf8proc_ssize_t at = 0; at < size;) {
    utf8proc_int32_t character = 0;
    const utf8proc_ssize_t length = utf8proc_iterate(bytes + at, size - at, &character);
    if (length <= 0) return invalid_argument(path, ": not UTF-8 at byte ", at);
    at += length;
  }
  return document;
}

std::string describe_tokens(const engine::RequestStats& s) {
  return cat(s.prompt_tokens, " tokens: ", s.prefix_cached, " prefix, ", s.document_cached,
             " reused (", s.relocated, " relocated), ", s.recomputed, " recomputed, ", s.fresh,
             " fresh");
}

std::string describe_fits(const engine::RequestStats& stats) {
  std::vector<std::pair<std::string, int>> counts;
  for (const engine::DocumentUse& use : stats.documents) {
    const auto same = [&](const auto& count) { return count.first == use.fit_name(); };
    const auto it = std::find_if(counts.begin(), counts.end(), same);
    if (it == counts.end()) {
      counts.emplace_back(use.fit_name(), 1);
    } else {
      ++it->second;
    }
  }
  std::string out;
  for (const auto& [fit, count] : counts) out += cat(out.empty() ? "" : ", ", count, " ", fit);
  return out;
}

}  // namespace rk::cli
