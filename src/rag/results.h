// What one sample gave in every mode, and the file that keeps it: JSON lines, one a sample,
// appended when the sample is done, so that an interrupted bench goes on where it was. One thread.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/status.h"

namespace rk::rag {

struct ModeResult {
  std::string mode;    ///< ModeSpec::name
  std::string ran;     ///< the engine's mode that ran
  std::string answer;  ///< its text
  std::string finish;  ///< stop, length
  int64_t answer_tokens = 0;
  double score = 0;                ///< needle score, or F1 for data
  double exact_match = 0, f1 = 0;  ///< of the answer's text
  std::optional<double> kl;        ///< mean over the dense answer's tokens; none where it is empty
  int64_t kl_tokens = 0, same_top1 = 0;
  bool same_answer = false;      ///< token for token, and the same end
  double ttft_ms = 0;            ///< request to first emitted token, stored rows' load included
  double ingest_in_ttft_ms = 0;  ///< documents that had to be computed again; 0 is as it should be
  std::optional<double> tokens_per_s;  ///< after the first; none below two tokens
  int64_t prefix_cached = 0, document_cached = 0, recomputed = 0, fresh = 0, relocated = 0;
  int64_t kv_bytes = 0;
  double flops = 0, bytes = 0;                      ///< counted up to the first token
  double predicted_flops = 0, predicted_bytes = 0;  ///< ... by the cost model
  /// Prompt positions [begin, end) that were recomputed, where the engine reports them.
  std::vector<std::pair<int64_t, int64_t>> recomputed_at;
};

struct SampleResult {
  std::string id, task, question;
  std::vector<std::string> answers;
  std::string config;         ///< hash of the configuration
  std::string prompt_digest;  ///< of the token ids, the same in all modes
  int64_t length_tokens = 0, prompt_tokens = 0, num_documents = 0;
  bool needle = false;
  std::vector<int> evidence;
  double ingest_ms = 0;           ///< documents computed and stored beforehand
  std::vector<ModeResult> modes;  ///< in the order of the configuration; dense first
  std::vector<int> order;         ///< indices of `modes`, as they were timed

  /// Null where the sample does not have the mode.
  const ModeResult* find(const std::string& mode) const;
  /// The same prompt of the same sample, whichever run it is of.
  std::string key() const;
};

/// One line without its end. Reading it back may change a number's last bit.
std::string to_json_line(const SampleResult& result);
/// Errors: kDataLoss naming the field.
Result<SampleResult> parse_json_line(const std::string& line);

class ResultsFile {
 public:
  /// Opens or makes it, reads what is there and drops a half line at its end. Holds a lock until
  /// destroyed. Errors: kInvalidArgument where a line is of another configuration; kDataLoss naming
  /// the line that cannot be read; kUnavailable where it cannot be opened or another process has
  /// it.
  static Result<ResultsFile> open(const std::string& path, const std::string& config);
  ~ResultsFile();
  ResultsFile(ResultsFile&& other) noexcept;
  ResultsFile& operator=(ResultsFile&&) = delete;

  bool has(const std::string& id) const { return by_id_.count(id) > 0; }
  /// Null where there is none. Valid until the next append.
  const SampleResult* find(const std::string& id) const;
  /// On disk when it returns. Errors: kUnavailable; the file then ends as before or in a half line.
  Status append(const SampleResult& result);

 private:
  ResultsFile() = default;
  Status read_all(const std::string& config);
  std::string path_;
  int fd_ = -1;
  std::vector<SampleResult> results_;
  std::map<std::string, size_t> by_id_;
};

}  // namespace rk::rag
