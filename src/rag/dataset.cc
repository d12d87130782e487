#include "rag/dataset.h"

#include <sys/stat.h>

#include <boost/json.hpp>
#include <fstream>
#include <map>

namespace rk::rag {
namespace {

namespace json = boost::json;

bool blank(std::string_view text) {
  return text.find_first_not_of(" \t\r\n\f\v") == std::string_view::npos;
}

const char* kind_name(const json::value& v) {
  switch (v.kind()) {
    case json::kind::null:
      return "null";
    case json::kind::bool_:
      return "a bool";
    case json::kind::string:
      return "a string";
    case json::kind::array:
      return "an array";
    case json::kind::object:
      return "an object";
    default:
      return "a number";
  }
}

// One line; every error names where.
class LineReader {
 public:
  LineReader(const std::string& where, const DatasetLimits& limits)
      : where_(where), limits_(limits) {}

  Result<Sample> read(const std::string& line) const {
    boost::system::error_code error;
    const json::value value = json::parse(line, error);
    if (error) return invalid_argument(where_, ": no JSON: ", error.message());
    if (!value.is_object()) {
      return invalid_argument(where_, ": ", kind_name(value), ", an object wanted");
    }
    const json::object& object = value.get_object();
    Sample sample{.task = kDataTask, .needle = false};
    RK_TRY(sample.id, id(object));
    RK_TRY(sample.question, text(object, "question", "question"));
    RK_RETURN_IF_ERROR(answers(object, sample.answers));
    RK_RETURN_IF_ERROR(documents(object, sample.documents));
    return sample;
  }

 private:
  Result<const json::value*> field(const json::object& object, const char* name,
                                   const std::string& shown) const {
    const json::value* v = object.if_contains(name);
    if (v == nullptr) return invalid_argument(where_, ": field '", shown, "' is missing");
    return v;
  }

  Result<std::string> string_of(const json::value& v, const std::string& shown) const {
    if (!v.is_string()) {
      return invalid_argument(where_, ": field '", shown, "' is ", kind_name(v),
                              ", a string wanted");
    }
    std::string out(v.get_string());
    if (blank(out)) return invalid_argument(where_, ": field '", shown, "' is empty");
    return out;
  }

  Result<std::string> text(const json::object& object, const char* name,
                           const std::string& shown) const {
    RK_TRY(const json::value* v, field(object, name, shown));
    return string_of(*v, shown);
  }

  Result<std::string> id(const json::object& object) const {
    RK_TRY(const json::value* v, field(object, "id", "id"));
    if (v->is_int64()) return std::to_string(v->get_int64());
    return string_of(*v, "id");
  }

  Result<const json::array*> array(const json::object& object, const char* name) const {
    RK_TRY(const json::value* v, field(object, name, name));
    if (!v->is_array()) {
      return invalid_argument(where_, ": field '", name, "' is ", kind_name(*v),
                              ", an array wanted");
    }
    if (v->get_array().empty()) return invalid_argument(where_, ": field '", name, "' is empty");
    return &v->get_array();
  }

  Status answers(const json::object& object, std::vector<std::string>& out) const {
    RK_TRY(const json::array* all, array(object, "answers"));
    for (size_t i = 0; i < all->size(); ++i) {
      RK_TRY(auto answer, string_of((*all)[i], cat("answers[", i, "]")));
      out.push_back(std::move(answer));
    }
    return {};
  }

  Status documents(const json::object& object, std::vector<Document>& out) const {
    RK_TRY(const json::array* all, array(object, "documents"));
    if (static_cast<int64_t>(all->size()) > limits_.max_documents) {
      return invalid_argument(where_, ": field 'documents' has ", all->size(), " of them, at most ",
                              limits_.max_documents, " wanted");
    }
    for (size_t i = 0; i < all->size(); ++i) {
      const json::value& v = (*all)[i];
      const std::string shown = cat("documents[", i, "]");
      Document document;
      if (v.is_object()) {
        RK_TRY(document.text, text(v.get_object(), "text", shown + ".text"));
        const json::value* title = v.get_object().if_contains("title");
        if (title != nullptr && !title->is_null()) {
          if (!title->is_string()) {
            return invalid_argument(where_, ": field '", shown, ".title' is ", kind_name(*title),
                                    ", a string wanted");
          }
          document.title = std::string(title->get_string());
        }
      } else {
        RK_TRY(document.text, string_of(v, shown));
      }
      out.push_back(std::move(document));
    }
    return {};
  }

  const std::string& where_;
  const DatasetLimits& limits_;
};

// A line of at most `limit` bytes; kInvalidArgument where it is longer, so that a file without line
// ends costs no more memory than that.
Result<bool> next_line(std::istream& in, const std::string& where, int64_t limit,
                       std::string& line) {
  line.clear();
  std::streambuf& bytes = *in.rdbuf();
  for (int c = bytes.sbumpc();; c = bytes.sbumpc()) {
    if (c == std::char_traits<char>::eof()) return !line.empty();
    if (c == '\n') return true;
    if (static_cast<int64_t>(line.size()) >= limit) {
      return invalid_argument(where, ": more than ", limit, " bytes in a line");
    }
    line += static_cast<char>(c);
  }
}

}  // namespace

Result<std::vector<Sample>> read_samples(const std::string& path, const DatasetLimits& limits) {
  struct stat info {};
  if (stat(path.c_str(), &info) != 0) return not_found(path, ": no such file");
  if (!S_ISREG(info.st_mode)) return invalid_argument(path, ": not a regular file");
  std::ifstream in(path, std::ios::binary);
  if (!in) return invalid_argument(path, ": cannot be opened");
  std::vector<Sample> samples;
  std::map<std::string, int64_t> line_of;
  std::string line;
  for (int64_t number = 1;; ++number) {
    const std::string where = cat(path, ":", number);
    RK_TRY(const bool more, next_line(in, where, limits.max_line_bytes, line));
    if (!more) break;
    if (blank(line)) continue;
    RK_TRY(Sample sample, LineReader(where, limits).read(line));
    const auto [known, fresh] = line_of.emplace(sample.id, number);
    if (!fresh) {
      return invalid_argument(where, ": field 'id' is '", sample.id, "', used in line ",
                              known->second, " already");
    }
    samples.push_back(std::move(sample));
    const auto num = static_cast<int64_t>(samples.size());
    if (num == limits.max_samples) break;
    if (num > limits.max_samples_in_file) {
      return invalid_argument(where, ": more than ", limits.max_samples_in_file, " samples");
    }
  }
  if (samples.empty()) return invalid_argument(path, ": no samples");
  return samples;
}

}  // namespace rk::rag
