#include "rag/metrics.h"

#include <utf8proc.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>

#include "rag/random.h"

namespace rk::rag {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

bool is_ascii_punctuation(char c) {
  return (c >= '!' && c <= '/') || (c >= ':' && c <= '@') || (c >= '[' && c <= '`') ||
         (c >= '{' && c <= '~');
}
bool is_ascii_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }
bool is_digit(char c) { return c >= '0' && c <= '9'; }

std::string lower(std::string_view text) {
  std::string out;
  const auto* bytes = reinterpret_cast<const utf8proc_uint8_t*>(text.data());
  const auto size = static_cast<utf8proc_ssize_t>(text.size());
  for (utf8proc_ssize_t at = 0; at < size;) {
    utf8proc_int32_t c = 0;
    const utf8proc_ssize_t length = utf8proc_iterate(bytes + at, size - at, &c);
    if (length <= 0) {  // no UTF-8: kept as it is
      out += text[static_cast<size_t>(at++)];
      continue;
    }
    utf8proc_uint8_t encoded[4];
    const utf8proc_ssize_t wrote = utf8proc_encode_char(utf8proc_tolower(c), encoded);
    out.append(reinterpret_cast<const char*>(encoded), static_cast<size_t>(wrote));
    at += length;
  }
  return out;
}

std::vector<std::string> words_of(std::string_view text) {
  std::vector<std::string> words(1);
  for (const char c : text) {
    if (!is_ascii_space(c)) {
      words.back() += c;
    } else if (!words.back().empty()) {
      words.emplace_back();
    }
  }
  if (words.back().empty()) words.pop_back();
  return words;
}

std::vector<std::string> answer_words(std::string_view text) {
  std::string kept = lower(text);
  std::erase_if(kept, is_ascii_punctuation);
  std::vector<std::string> words = words_of(kept);
  std::erase_if(words, [](const std::string& w) { return w == "a" || w == "an" || w == "the"; });
  return words;
}

double f1_of(const std::vector<std::string>& got, const std::vector<std::string>& want) {
  if (got.empty() || want.empty()) return got.empty() && want.empty() ? 1 : 0;
  std::map<std::string, int64_t> left;
  for (const std::string& w : want) ++left[w];
  int64_t common = 0;
  for (const std::string& w : got) common += left[w]-- > 0;
  if (common == 0) return 0;
  const double precision = static_cast<double>(common) / static_cast<double>(got.size());
  const double recall = static_cast<double>(common) / static_cast<double>(want.size());
  return 2 * precision * recall / (precision + recall);
}

// A comma between a digit and exactly three of them.
bool groups_thousands(const std::string& text, size_t at) {
  if (text[at] != ',' || at == 0 || !is_digit(text[at - 1])) return false;
  size_t end = at + 1;
  while (end < text.size() && is_digit(text[end])) ++end;
  size_t begin = at;
  while (begin > 0 && is_digit(text[begin - 1])) --begin;
  return end - at == 4 && at - begin <= 3;
}

// " words of the text " with everything but letters, digits and non-ASCII bytes a space.
std::string spaced(std::string_view text) {
  const std::string all = lower(text);
  std::string out = " ";
  for (size_t i = 0; i < all.size(); ++i) {
    if (groups_thousands(all, i)) continue;
    const bool gap = is_ascii_punctuation(all[i]) || is_ascii_space(all[i]);
    if (!gap) {
      out += all[i];
    } else if (out.back() != ' ') {
      out += ' ';
    }
  }
  if (out.back() != ' ') out += ' ';
  return out;
}

// log of the probability of exactly k hits.
double log_binomial(int64_t n, int64_t k, double p) {
  const auto real = [](int64_t x) { return static_cast<double>(x); };
  return std::lgamma(real(n) + 1) - std::lgamma(real(k) + 1) - std::lgamma(real(n - k) + 1) +
         real(k) * std::log(p) + real(n - k) * std::log1p(-p);
}

}  // namespace

std::string normalize_answer(std::string_view text) {
  std::string out;
  for (const std::string& word : answer_words(text)) out += (out.empty() ? "" : " ") + word;
  return out;
}

double exact_match(std::string_view answer, std::span<const std::string> answers) {
  const std::string got = normalize_answer(answer);
  return std::any_of(answers.begin(), answers.end(),
                     [&](const std::string& want) { return normalize_answer(want) == got; });
}

double answer_f1(std::string_view answer, std::span<const std::string> answers) {
  const auto got = answer_words(answer);
  double best = 0;
  for (const std::string& want : answers) best = std::max(best, f1_of(got, answer_words(want)));
  return best;
}

double needle_score(std::string_view answer, std::span<const std::string> expected) {
  const std::string text = spaced(answer);
  const auto found = std::count_if(expected.begin(), expected.end(), [&](const std::string& want) {
    return text.find(spaced(want)) != std::string::npos;
  });
  return static_cast<double>(found) / static_cast<double>(expected.size());
}

double mean(std::span<const double> values) {
  if (values.empty()) return kNan;
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

double quantile(std::span<const double> values, double share) {
  if (values.empty()) return kNan;
  std::vector<double> sorted(values.begin(), values.end());
  std::sort(sorted.begin(), sorted.end());
  const double at = share * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<size_t>(at);
  const size_t above = std::min(below + 1, sorted.size() - 1);
  return sorted[below] + (at - static_cast<double>(below)) * (sorted[above] - sorted[below]);
}

Interval bootstrap(std::span<const double> values, const Statistic& statistic, uint64_t seed,
                   int resamples) {
  if (values.empty()) return {kNan, kNan};
  Random random(seed);
  std::vector<double> drawn(values.size()), results;
  for (int i = 0; i < resamples; ++i) {
    for (double& v : drawn) v = values[random.below(values.size())];
    results.push_back(statistic(drawn));
  }
  return {quantile(results, 0.025), quantile(results, 0.975)};
}

double rate_upper_bound(int64_t hits, int64_t trials, double confidence) {
  if (hits >= trials) return 1;
  // The rate at which so few hits are just as unlikely as 1 - confidence; the tail falls with it.
  double low = 0, high = 1;
  for (int i = 0; i < 100; ++i) {
    const double p = (low + high) / 2;
    double tail = 0;
    for (int64_t k = 0; k <= hits; ++k) tail += std::exp(log_binomial(trials, k, p));
    (tail > 1 - confidence ? low : high) = p;
  }
  return (low + high) / 2;
}

}  // namespace rk::rag
