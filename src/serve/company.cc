#include "serve/company.h"

#include <algorithm>
#include <charconv>
#include <fstream>

namespace rk::serve {
namespace {

constexpr int kDefaultTokens = 512;
constexpr int kMaxPieces = 6;         // as many as there are texts
constexpr size_t kPieceTokens = 512;  // of a mean, at most
constexpr size_t kMaxFileTokens = 16384;
constexpr size_t kMaxFileBytes = size_t{1} << 20;

enum class Kind { kNone, kNeutral, kMean, kFile };
struct Spec {
  Kind kind = Kind::kFile;
  int number = 0;
};

Result<Spec> parse(std::string_view spec) {
  const size_t colon = spec.find(':');
  const std::string_view name = spec.substr(0, colon);
  Spec out;
  if (spec == "none") return Spec{Kind::kNone, 0};
  if (name == "neutral") {
    out = {Kind::kNeutral, kDefaultTokens};
  } else if (name == "mean") {
    out = {Kind::kMean, 3};
  } else {
    if (spec.empty())
      return invalid_argument("company: nothing given; none, neutral, mean or a file");
    return out;
  }
  if (colon == std::string_view::npos) return out;
  const std::string_view number = spec.substr(colon + 1);
  const auto [end, error] =
      std::from_chars(number.data(), number.data() + number.size(), out.number);
  const int most = out.kind == Kind::kMean ? kMaxPieces : 1 << 20,
            least = out.kind == Kind::kMean ? 2 : 1;
  if (error != std::errc() || end != number.data() + number.size() || out.number < least ||
      out.number > most) {
    return invalid_argument("company: '", spec, "': '", number, "' is no number of ",
                            out.kind == Kind::kMean ? "pieces" : "tokens", " in ", least, "..",
                            most);
  }
  return out;
}

std::vector<int32_t> neutral_tokens(const text::Tokenizer& tokenizer, size_t first, size_t last) {
  std::string text;
  for (size_t i = first; i < last; ++i) text += wrap_document(neutral_documents()[i]);
  return tokenizer.encode(text, false, false);
}

void keep_last(std::vector<int32_t>& tokens, size_t count) {
  if (tokens.size() <= count) return;
  tokens.erase(tokens.begin(), tokens.end() - static_cast<std::ptrdiff_t>(count));
}

}  // namespace

Status check_company(std::string_view spec) { return parse(spec).status(); }

Result<Company> read_company(const text::Tokenizer& tokenizer, std::string_view spec) {
  RK_TRY(const Spec parsed, parse(spec));
  Company out;
  const size_t num_texts = neutral_documents().size();
  if (parsed.kind == Kind::kNone) return out;
  if (parsed.kind == Kind::kNeutral) {
    out.tokens = neutral_tokens(tokenizer, 0, num_texts);
    const auto wanted = static_cast<size_t>(parsed.number);
    if (wanted > out.tokens.size()) {
      return invalid_argument("company: ", wanted, " tokens wanted, the neutral text has ",
                              out.tokens.size());
    }
    keep_last(out.tokens, wanted);
    return out;
  }
  if (parsed.kind == Kind::kMean) {
    std::vector<std::vector<int32_t>> pieces;
    const size_t each = num_texts / static_cast<size_t>(parsed.number);
    size_t length = kPieceTokens;
    for (size_t i = 0; i < static_cast<size_t>(parsed.number); ++i) {
      auto piece = neutral_tokens(tokenizer, i * each, (i + 1) * each);
      length = std::min(length, piece.size());
      pieces.push_back(std::move(piece));
    }
    for (auto& piece : pieces) {
      keep_last(piece, length);
      out.tokens.insert(out.tokens.end(), piece.begin(), piece.end());
    }
    out.pieces = parsed.number;
    return out;
  }
  const std::string path(spec);
  std::ifstream in(path, std::ios::binary);
  if (!in) {
    return not_found("company: '", path, "' is none of none, neutral[:TOKENS], mean:K and no file");
  }
  std::string text(kMaxFileBytes + 1, '\0');  // no more is read, whatever the file is
  in.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<size_t>(in.gcount()));
  if (text.size() > kMaxFileBytes) {
    return invalid_argument("company: ", path, " has more than the ", kMaxFileBytes,
                            " bytes that are possible");
  }
  out.tokens = tokenizer.encode(text, false, false);
  if (out.tokens.empty() || out.tokens.size() > kMaxFileTokens) {
    return invalid_argument("company: ", path, " has ", out.tokens.size(), " tokens, 1 to ",
                            kMaxFileTokens, " possible");
  }
  return out;
}

}  // namespace rk::serve
