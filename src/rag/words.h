// The words that generated samples are made of, and sentences without meaning around the evidence.
// Written for this program; no digits, no capitals but at a sentence's start and in names, so that
// no filler can look like evidence. Immutable.
#pragma once

#include <string>
#include <vector>

#include "rag/random.h"

namespace rk::rag {

const std::vector<std::string>& adjectives();
const std::vector<std::string>& nouns();
const std::vector<std::string>& first_names();
const std::vector<std::string>& last_names();
const std::vector<std::string>& variable_names();  ///< upper case, no words

/// One sentence, with its full stop.
std::string filler_sentence(Random& random);

}  // namespace rk::rag
