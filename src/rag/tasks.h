// Samples of the quality bench: a question over documents and what a right answer holds. Five
// generators with seeds; files of the user's are read by dataset.h. Knows token counts through a
// function, no model. Pure functions.
//
//   mk    single needle: every document holds two keys with a seven-digit number each, one is asked
//   mv    multi-value needle: four numbers of one key in four documents, all are asked; other keys
//         with one number each stand around them
//   hop2  two hops: parcel -> locker in one document, locker -> code in another, either order; two
//         people
//   vt2   variable chains across documents: VAR A = 48213, and elsewhere VAR B = VAR A; two chains,
//         the question names a value and asks for its variables
//   cwe   common words: each document is a list of words, the three most frequent of all are asked
//
// The first document with evidence is number (index mod documents): the position is swept.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/status.h"

namespace rk::rag {

/// The task that asks for one planted fact: what a card's needle loss is measured on (spec A8).
inline constexpr const char* kPlantedFactTask = "mk";

struct Document {
  std::string title;  ///< may be empty
  std::string text;
};

struct Sample {
  std::string id;
  std::string task;           ///< a generator's name, or kDataTask
  int64_t length_tokens = 0;  ///< asked of the generator; 0: as long as it is
  std::string question;
  std::vector<std::string> answers;
  bool needle = true;  ///< every answer must be found in the text; false: any one, by F1
  std::vector<Document> documents;
  std::vector<int> evidence;  ///< documents that the answer needs, where known
};

/// Tokens of a text, as the model under test counts them.
using CountTokens = std::function<int64_t(const std::string& text)>;

struct TaskOptions {
  int64_t length_tokens = 4096;  ///< of the whole prompt: what is not overhead or question is split
                                 ///< evenly over the documents
  int num_documents = 8;         ///< 2 to 10,000
  uint64_t seed = 0;
  int index = 0;                ///< which sample of this (task, length, seed)
  int64_t overhead_tokens = 0;  ///< of the prompt around documents and question
  CountTokens count_tokens;
};

/// The task of samples that a file of the user's holds.
inline constexpr const char* kDataTask = "data";

/// In the order of the list above.
const std::vector<std::string>& task_names();

/// The length that a prompt of no asked length counts as: the next power of two.
int64_t length_class(int64_t prompt_tokens);

/// The documents that a prompt of this length has unless told otherwise: 8, above 8,192 tokens 16.
int default_num_documents(int64_t length_tokens);

/// The same options give the same sample on every machine. The prompt ends below `length_tokens` by
/// less than a sentence for each document.
/// Errors: kInvalidArgument for an unknown task, naming the known; for lengths that leave too few
/// tokens for a document, with both numbers.
Result<Sample> generate_sample(const std::string& task, const TaskOptions& options);

}  // namespace rk::rag
