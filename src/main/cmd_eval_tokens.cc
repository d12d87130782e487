#include <boost/json.hpp>
#include <iostream>
#include <iterator>
#include <memory>

#include "main/cli.h"
#include "main/pull.h"
#include "text/tokenizer.h"

namespace rk::cli {
namespace {

namespace json = boost::json;

struct TokensFlags {
  bool decode = false;
  bool special = false;
  bool add_special = false;
};

Result<std::vector<int32_t>> parse_ids(const std::string& text, int32_t vocab_size) {
  json::error_code ec;
  json::parse_options limits;
  limits.max_depth = 4;
  const json::value root = json::parse(text, ec, {}, limits);
  if (ec || !root.is_array()) return invalid_argument("stdin: no JSON array of token ids");
  std::vector<int32_t> ids;
  for (const json::value& v : root.get_array()) {
    const int64_t at = static_cast<int64_t>(ids.size());
    if (!v.is_int64()) return invalid_argument("stdin: element ", at, " is no integer");
    const int64_t id = v.get_int64();
    if (id < 0 || id >= vocab_size) {
      return invalid_argument("stdin: element ", at, " is ", id, ", ids go from 0 to ",
                              vocab_size - 1);
    }
    ids.push_back(static_cast<int32_t>(id));
  }
  return ids;
}

Status eval_tokens(const TokensFlags& f, const CommonFlags& common) {
  RK_TRY(const std::string path, resolve_model(common.model));
  RK_TRY(const auto tokenizer, text::Tokenizer::load(path));
  const std::string in{std::istreambuf_iterator<char>(std::cin), std::istreambuf_iterator<char>()};
  if (std::cin.bad()) return unavailable("stdin: cannot be read");
  if (f.decode) {
    RK_TRY(const std::vector<int32_t> ids, parse_ids(in, tokenizer->vocab_size()));
    std::cout << tokenizer->decode(ids, !f.special);  // no newline: the text as it is
    return {};
  }
  json::array out;
  for (const int32_t id : tokenizer->encode(in, f.special, f.add_special)) out.push_back(id);
  std::cout << out << "\n";
  return {};
}

}  // namespace

/// redknot eval tokens: the tokenizer that the server uses, on stdin.
Command cmd_eval_tokens() {
  return {
      .name = "eval tokens",
      .summary = "text on stdin to a JSON array of token ids, or back",
      .examples =
          "  echo -n 'Hello' | redknot eval tokens -m smollm2\n"
          "  echo '[19556,28]' | redknot eval tokens --decode\n"
          "  echo -n '<|im_start|>user' | redknot eval tokens --special\n",
      .uses = kUsesModel,
      .declare = [](Flags& flags, const CommonFlags& common) -> Action {
        auto f = std::make_shared<TokensFlags>();
        flags.add("--decode", f->decode,
                  "ids to text; special tokens are left out without --special");
        flags.add("--special", f->special,
                  "special tokens are recognised in text, or shown in text");
        flags.add("--add-special", f->add_special, "begin- and end-of-text as the model adds them");
        return {[f, &common] { return eval_tokens(*f, common); }};
      },
  };
}

}  // namespace rk::cli
