// The company that documents are computed in (spec A3): a text between lead and document whose rows
// are dropped, so that a document's rows behave like rows inside a prompt. Immutable; no state.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "serve/prompt.h"
#include "text/tokenizer.h"

namespace rk::serve {

/// What Request.company and company_pieces are set to.
struct Company {
  std::vector<int32_t> tokens;
  int pieces = 1;
};

/// Texts of our own on nothing in particular, about equally long.
const std::vector<Document>& neutral_documents();

/// `spec`: "none"; "neutral" or "neutral:TOKENS", the last TOKENS of the neutral text; "mean:K",
/// the mean over K disjoint pieces of it; anything else is the path of a UTF-8 text file. Errors:
/// kInvalidArgument naming what was given and what is possible; those of reading the file.
Result<Company> read_company(const text::Tokenizer& tokenizer, std::string_view spec);
/// The same without a tokenizer or a file: what can be wrong with the words themselves.
Status check_company(std::string_view spec);

}  // namespace rk::serve
