// Head plan: class, window and sink of every (layer, KV head) of one model (spec A1, A2).
//
// Reads and writes our JSON (docs/formats.md, "Head plan") and imports the published reference's
// files. Knows no positions: kv/visible turns classes into rows. Immutable once made.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace rk::kv {

/// What the KV of a model looks like, as far as plans and pages care.
struct KvShape {
  int num_layers = 0;
  int num_kv_heads = 0;
  int head_dim = 0;
};

/// Persistent values: they are part of stored identities.
enum class HeadClass : uint8_t {
  kLocal = 0,      ///< sees sink and window only
  kGlobal = 1,     ///< sees every earlier position
  kRetrieval = 2,  ///< keeps everything; may attend to less (top-p is not built: sees everything)
  kDense = 3,      ///< never approximated
};
const char* head_class_name(HeadClass cls);

struct HeadPolicy {
  HeadClass cls = HeadClass::kGlobal;
  int32_t window = -1;  ///< rows up to and with the query's own; kLocal: >= 0, else -1
  int32_t sink = 0;     ///< first rows of the prompt that stay visible; 0 for kGlobal and kDense
  bool operator==(const HeadPolicy&) const = default;
};

class HeadPlan {
 public:
  static constexpr int32_t kDefaultWindow = 512;  ///< reference files: local without a distance
  static constexpr int32_t kDefaultSink = 4;      ///< reference files without a sink matrix
  static constexpr double kDefaultTopP = 0.9;
  static constexpr int32_t kMaxRows = 1 << 30;       ///< largest window or sink
  static constexpr int64_t kMaxFileBytes = 8 << 20;  ///< a plan of 1000 layers x 128 heads fits

  HeadPlan() = default;
  /// The baseline: every head sees everything.
  static HeadPlan all_global(int num_layers, int num_kv_heads);
  /// Policies [layer][head] from code (profiler, tests), checked like a file's.
  static Result<HeadPlan> from_policies(int num_layers, int num_kv_heads,
                                        std::vector<HeadPolicy> policies,
                                        std::string model_fingerprint = {});

  /// Reads a file. `model_fingerprint` is this model's; a plan that names another is refused, one
  /// that names none (all reference files) is taken. Either may be empty.
  /// Errors: kNotFound; kInvalidArgument naming file, key, layer, head and both values;
  /// kUnimplemented for a known feature that is not built.
  static Result<HeadPlan> load(const std::string& path, const KvShape& shape,
                               std::string_view model_fingerprint = {});
  /// The same from text; `name` stands for the file in messages.
  static Result<HeadPlan> parse(std::string_view json, std::string_view name, const KvShape& shape,
                                std::string_view model_fingerprint = {});

  int num_layers() const { return num_layers_; }
  int num_kv_heads() const { return num_kv_heads_; }
  /// Requires: layer and head inside the plan.
  const HeadPolicy& at(int layer, int head) const;
  double retrieval_top_p() const { return retrieval_top_p_; }
  const std::string& model_fingerprint() const { return model_fingerprint_; }
  /// True where every head sees everything: the plan is the dense baseline.
  bool all_global() const;
  /// Heads of one class.
  int64_t count(HeadClass cls) const;

  /// Our format; parse() gives the same plan back.
  std::string to_json() const;
  /// SHA-256 in hex of what the plan does (not of its file, nor of the model it names).
  std::string digest() const;

 private:
  friend class HeadPlanReader;
  int num_layers_ = 0, num_kv_heads_ = 0;
  std::vector<HeadPolicy> heads_;  ///< [layer][head]
  double retrieval_top_p_ = kDefaultTopP;
  std::string model_fingerprint_;
};

}  // namespace rk::kv
