#include "rag/tasks.h"

#include <algorithm>
#include <bit>
#include <numeric>
#include <set>

#include "rag/random.h"
#include "rag/words.h"

namespace rk::rag {
namespace {

constexpr int kMaxDocuments = 10'000;
constexpr int kKeysPerDocument = 2, kValues = 4, kCommonWords = 3;
constexpr int kSeparatorTokens = 3;  // the blank lines behind a document, generously

// What a generator puts into each document, before filler surrounds it.
using Planted = std::vector<std::vector<std::string>>;

class Generator {
 public:
  explicit Generator(const std::string& task, const TaskOptions& options)
      : options_(options),
        random_(derived_seed(options.seed,
                             cat(task, "/", options.length_tokens, "/", options.num_documents),
                             static_cast<uint64_t>(options.index))),
        num_documents_(static_cast<size_t>(options.num_documents)) {
    sample_.id = cat(task, "-", options.length_tokens, "-", options.index);
    sample_.task = task;
    sample_.length_tokens = options.length_tokens;
  }

  Result<Sample> make() {
    if (sample_.task == "cwe") return common_words();
    Planted planted(num_documents_);
    if (sample_.task == "mk") single_needle(planted);
    if (sample_.task == "mv") multi_value(planted);
    if (sample_.task == "hop2") two_hops(planted);
    if (sample_.task == "vt2") variable_chains(planted);
    RK_TRY(const int64_t budget, document_tokens());
    for (const auto& sentences : planted) RK_RETURN_IF_ERROR(add_document(sentences, budget));
    return sample_;
  }

 private:
  size_t first_evidence() const { return static_cast<size_t>(options_.index) % num_documents_; }

  size_t other_document(size_t than) {
    const size_t d = random_.below(num_documents_ - 1);
    return d < than ? d : d + 1;
  }

  // `digits` of them, the first no zero, never the same twice.
  std::string number(int digits) {
    for (;;) {
      std::string out(1, static_cast<char>('1' + random_.below(9)));
      for (int i = 1; i < digits; ++i) out += static_cast<char>('0' + random_.below(10));
      if (numbers_.insert(out).second) return out;
    }
  }

  // Pairs of words, none twice. Above the number of pairs a third word tells them apart.
  std::vector<std::string> keys(size_t num) {
    std::vector<std::string> out;
    std::set<std::string> seen;
    while (out.size() < num) {
      std::string key = cat(random_.of(adjectives()), " ", random_.of(nouns()));
      if (num > adjectives().size() * nouns().size() / 2) key += " " + random_.of(last_names());
      if (seen.insert(key).second) out.push_back(key);
    }
    return out;
  }

  template <class T>
  std::vector<T> draw(std::vector<T> from, size_t num) {
    random_.shuffle(from);
    from.resize(num);
    return from;
  }

  void single_needle(Planted& planted) {
    const auto names = keys(num_documents_ * kKeysPerDocument);
    const size_t asked = first_evidence();
    for (size_t i = 0; i < names.size(); ++i) {
      const std::string value = number(7);
      planted[i / kKeysPerDocument].push_back(
          cat("The access number of the ", names[i], " is ", value, "."));
      if (i != asked * kKeysPerDocument) continue;
      sample_.answers = {value};
      sample_.question =
          cat("What is the access number of the ", names[i], "? Answer with the number only.");
    }
    sample_.evidence = {static_cast<int>(asked)};
  }

  void multi_value(Planted& planted) {
    const auto names = keys(num_documents_ + 1);
    for (size_t d = 0; d < num_documents_; ++d) {
      planted[d].push_back(
          cat("One of the serial numbers of the ", names[d + 1], " is ", number(7), "."));
    }
    for (size_t i = 0; i < kValues; ++i) {
      const size_t d =
          (first_evidence() + i * std::max<size_t>(num_documents_ / kValues, 1)) % num_documents_;
      sample_.answers.push_back(number(7));
      planted[d].push_back(
          cat("One of the serial numbers of the ", names[0], " is ", sample_.answers.back(), "."));
      add_evidence(d);
    }
    sample_.question = cat("What are all ", kValues, " serial numbers of the ", names[0],
                           "? Answer with the numbers only.");
  }

  void two_hops(Planted& planted) {
    const auto first = draw(first_names(), 2), last = draw(last_names(), 2);
    for (size_t i = 0; i < 2; ++i) {
      const std::string person = first[i] + " " + last[i], locker = number(3), code = number(5);
      size_t parcel_in = i == 0 ? first_evidence() : random_.below(num_documents_);
      size_t code_in = other_document(parcel_in);
      if (i == 0) {
        add_evidence(parcel_in);
        add_evidence(code_in);
      }
      if (random_.below(2) == 1) std::swap(parcel_in, code_in);
      planted[parcel_in].push_back(cat("The parcel of ", person, " lies in locker ", locker, "."));
      planted[code_in].push_back(cat("Locker ", locker, " opens with the code ", code, "."));
      if (i > 0) continue;
      sample_.answers = {code};
      sample_.question = cat("Which code opens the locker with the parcel of ", person,
                             "? Answer with the code only.");
    }
  }

  void variable_chains(Planted& planted) {
    const auto names = draw(variable_names(), 4);
    for (size_t i = 0; i < 2; ++i) {
      const std::string& from = names[2 * i];
      const std::string& to = names[2 * i + 1];
      const std::string value = number(5);
      const size_t value_in = i == 0 ? first_evidence() : random_.below(num_documents_);
      const size_t link_in = other_document(value_in);
      planted[value_in].push_back(cat("VAR ", from, " = ", value, "."));
      planted[link_in].push_back(cat("VAR ", to, " = VAR ", from, "."));
      if (i > 0) continue;
      add_evidence(value_in);
      add_evidence(link_in);
      sample_.answers = {from, to};
      sample_.question =
          cat("Which variables have the value ", value,
              ", directly or through another variable? Answer with their names only.");
    }
  }

  // Three words make up a third of every list; the others share the rest evenly.
  Result<Sample> common_words() {
    sample_.question =
        "Which three words occur most often in all the word lists together? Answer with the three "
        "words only.";
    std::vector<std::string> pool = nouns();
    random_.shuffle(pool);
    sample_.answers.assign(pool.begin(), pool.begin() + kCommonWords);
    const std::vector<std::string> rare(pool.begin() + kCommonWords, pool.end());
    RK_TRY(const int64_t budget, document_tokens());
    for (size_t d = 0; d < num_documents_; ++d) {
      sample_.evidence.push_back(static_cast<int>(d));
      std::string text = "Word list:";
      int64_t used = count(text) + kSeparatorTokens;
      const int64_t start = used;
      for (size_t i = 0;; ++i) {
        const bool common = i % kCommonWords == 0;
        const std::string word =
            " " + (common ? sample_.answers[random_.below(kCommonWords)] : random_.of(rare));
        used += count(word);
        if (used > budget) break;
        text += word;
      }
      if (budget - start < 4 * kCommonWords) return too_short(budget, start + 4 * kCommonWords);
      sample_.documents.push_back({"", std::move(text)});
    }
    return sample_;
  }

  void add_evidence(size_t document) {
    const int d = static_cast<int>(document);
    auto& all = sample_.evidence;
    if (std::find(all.begin(), all.end(), d) == all.end()) all.push_back(d);
  }

  int64_t count(const std::string& text) const { return options_.count_tokens(text); }

  Status too_short(int64_t have, int64_t want) const {
    return invalid_argument(sample_.task, ": ", options_.length_tokens, " tokens over ",
                            num_documents_, " documents leave ", have, " for a document, ", want,
                            " wanted");
  }

  Result<int64_t> document_tokens() const {
    const int64_t left =
        options_.length_tokens - options_.overhead_tokens - count(sample_.question);
    return std::max<int64_t>(left, 0) / static_cast<int64_t>(num_documents_);
  }

  // The planted sentences at random places among filler.
  Status add_document(const std::vector<std::string>& planted, int64_t budget) {
    int64_t used = kSeparatorTokens;
    for (const std::string& sentence : planted) used += count(" " + sentence);
    if (used > budget) return too_short(budget, used);
    std::vector<std::string> text;
    for (;;) {
      std::string sentence = filler_sentence(random_);
      used += count(" " + sentence);
      if (used > budget) break;
      text.push_back(std::move(sentence));
    }
    if (text.empty() && planted.empty()) return too_short(budget, used);
    for (const std::string& sentence : planted) {
      const auto at = static_cast<std::ptrdiff_t>(random_.below(text.size() + 1));
      text.insert(text.begin() + at, sentence);
    }
    std::string joined;
    for (const std::string& sentence : text) joined += (joined.empty() ? "" : " ") + sentence;
    sample_.documents.push_back({"", std::move(joined)});
    return {};
  }

  const TaskOptions& options_;
  Random random_;
  const size_t num_documents_;
  std::set<std::string> numbers_;
  Sample sample_;
};

}  // namespace

const std::vector<std::string>& task_names() {
  static const std::vector<std::string> names = {"mk", "mv", "hop2", "vt2", "cwe"};
  return names;
}

int64_t length_class(int64_t prompt_tokens) {
  return static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(prompt_tokens)));
}

int default_num_documents(int64_t length_tokens) { return length_tokens > 8192 ? 16 : 8; }

Result<Sample> generate_sample(const std::string& task, const TaskOptions& options) {
  const auto& known = task_names();
  if (std::find(known.begin(), known.end(), task) == known.end()) {
    std::string list;
    for (const std::string& name : known) list += (list.empty() ? "" : ", ") + name;
    return invalid_argument("task '", task, "' is none of ", list);
  }
  if (options.num_documents < 2 || options.num_documents > kMaxDocuments) {
    return invalid_argument(task, ": ", options.num_documents, " documents, 2 to ", kMaxDocuments,
                            " wanted");
  }
  if (options.index < 0) return invalid_argument(task, ": index ", options.index, " is negative");
  return Generator(task, options).make();
}

}  // namespace rk::rag
