// What the subcommands that generate share: engine, tokenizer and chat template from the common
// flags. Main thread only.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "main/cli.h"
#include "serve/company.h"
#include "serve/completion.h"
#include "serve/prompt.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace rk::cli {

model::CardWeights card_weights(const CommonFlags& common);
/// Errors: kInvalidArgument for a bad flag.
Result<engine::Engine::Options> engine_options(const CommonFlags& common, const std::string& path);

struct Session {
  std::string path;
  std::unique_ptr<engine::Engine> engine;
  std::unique_ptr<text::Tokenizer> tokenizer;
  std::optional<text::ChatTemplate> chat;  ///< absent where the model has none that we can render
  serve::Company company;                  ///< of --company, tokenised
  double load_ms = 0;

  /// Resolves (and pulls, where a known name is missing) and loads everything.
  static Result<Session> open(const CommonFlags& common, int64_t context_tokens = 0,
                              const engine::ShadowOptions& shadow = {});

  /// --company, where the subcommand takes it.
  void set_company(engine::Request& request) const {
    request.company = company.tokens;
    request.company_pieces = company.pieces;
  }
  /// A question over documents, as the server would put it.
  Result<std::vector<engine::PromptSpan>> prompt(
      const std::string& question, const std::vector<serve::Document>& documents) const;
};

/// One request run to its end on this thread; `on_text` sees the answer as it grows.
struct Answer {
  std::string text;
  std::vector<int32_t> tokens;
  std::string finish;  ///< stop, length, cancelled
  engine::RequestStats stats;
};
Result<Answer> answer(Session& session, const engine::Request& request,
                      const std::function<void(const std::string&)>& on_text = {});

/// A document file: UTF-8 text; its name is the title.
/// Errors: kNotFound, kInvalidArgument for empty or non-UTF-8 files and files above 64 MiB.
Result<serve::Document> read_document(const std::string& path);

/// "412 tokens: 20 prefix, 380 reused (190 relocated), 0 recomputed, 12 fresh"
std::string describe_tokens(const engine::RequestStats& stats);
/// What the documents were computed behind: "1 exact, 3 company"; empty without documents.
std::string describe_fits(const engine::RequestStats& stats);

}  // namespace rk::cli
