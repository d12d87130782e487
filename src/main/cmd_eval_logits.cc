#include <boost/json.hpp>
#include <fstream>
#include <iostream>
#include <memory>

#include "base/read_file.h"
#include "main/cli.h"
#include "main/pull.h"
#include "main/session.h"

namespace rk::cli {
namespace {

namespace json = boost::json;

struct LogitsFlags {
  std::string input, out;
};

struct Spec {
  engine::Request request;
  int64_t rows = 1;  // < 0: all
  std::string plan_path, plan_json;
};

Status bad(const std::string& where, const std::string& what) {
  return invalid_argument(where, ": ", what);
}

Result<std::vector<int32_t>> read_ids(const json::value& value, const std::string& where) {
  if (!value.is_array()) return bad(where, "not an array of token ids");
  std::vector<int32_t> ids;
  for (const json::value& id : value.get_array()) {
    if (!id.is_int64() || id.get_int64() < 0 || id.get_int64() > INT32_MAX) {
      return bad(where, "a token id is no number from 0 to 2^31-1");
    }
    ids.push_back(static_cast<int32_t>(id.get_int64()));
  }
  return ids;
}

Status read_options(const json::object& options, Spec& spec) {
  for (const auto& [key, value] : options) {
    if (key == "k") {
      if (!value.is_int64() || value.get_int64() < 0 || value.get_int64() > INT32_MAX) {
        return bad("options.k", "a number of rows wanted");
      }
      spec.request.boundary_rows = static_cast<int>(value.get_int64());
    } else if (key == "ratio") {
      if (!value.is_number()) return bad("options.ratio", "a number wanted");
      spec.request.selective_ratio = value.to_number<double>();
    } else if (key == "block") {
      if (!value.is_int64() || (value.get_int64() != 16 && value.get_int64() != 1)) {
        return bad("options.block", "blocks are 16 rows, or 1");
      }
      spec.request.select =
          value.get_int64() == 1 ? engine::SelectUnits::kRows : engine::SelectUnits::kBlocks;
    } else if (key == "select") {
      if (!value.is_string()) return bad("options.select", "blocks, both or rows wanted");
      RK_TRY(spec.request.select, engine::parse_select(std::string(value.get_string())));
    } else if (key == "company") {
      RK_TRY(spec.request.company, read_ids(value, "options.company"));
    } else if (key == "plan") {
      if (value.is_string()) {
        spec.plan_path = std::string(value.get_string());
      } else {
        spec.plan_json = json::serialize(value);
      }
    } else if (key != "seed") {
      return bad("options", cat("'", std::string(key),
                                "' is none of k, ratio, block, select, company, plan, seed"));
    }
  }
  return {};
}

constexpr size_t kMaxSpecBytes = size_t{256} << 20;

Result<Spec> read_spec(const std::string& path) {
  RK_TRY(const std::string text, read_file(path, kMaxSpecBytes));
  json::error_code error;
  json::parse_options limits;
  limits.max_depth = 16;
  const json::value root = json::parse(text, error, {}, limits);
  if (error || !root.is_object()) return bad(path, "no JSON object");
  const json::object& o = root.get_object();
  Spec spec;
  const json::value* spans = o.if_contains("spans");
  if (spans == nullptr || !spans->is_array()) return bad(path, "spans is not an array");
  for (const json::value& span : spans->get_array()) {
    const json::value* ids = span.is_object() ? span.get_object().if_contains("tokens") : nullptr;
    if (ids == nullptr) return bad(path, "a span has no tokens");
    engine::PromptSpan out;
    RK_TRY(out.tokens, read_ids(*ids, path + ": spans"));
    const json::value* segment = span.get_object().if_contains("segment");
    out.segment = segment != nullptr && segment->is_bool() && segment->get_bool();
    spec.request.spans.push_back(std::move(out));
  }
  std::string mode = "dense";
  if (const json::value* m = o.if_contains("mode")) {
    if (!m->is_string()) return bad(path, "mode is no string");
    mode = std::string(m->get_string());
  }
  RK_TRY(spec.request.mode, engine::parse_mode(mode));
  if (const json::value* options = o.if_contains("options"); options && options->is_object()) {
    RK_RETURN_IF_ERROR(read_options(options->get_object(), spec));
  }
  if (const json::value* rows = o.if_contains("rows")) {
    if (rows->is_int64() && rows->get_int64() > 0) {
      spec.rows = rows->get_int64();
    } else if (rows->is_string() && rows->get_string() == "all") {
      spec.rows = -1;
    } else if (!rows->is_string() || rows->get_string() != "last") {
      return bad(path, "rows is none of \"last\", \"all\" or a number of at least 1");
    }
  }
  return spec;
}

// NumPy's format 1.0: magic, version, header of 2 + n bytes padded to 64, then the data.
Status write_npy(const std::string& path, const std::vector<float>& data, int64_t columns) {
  std::string header = cat("{'descr': '<f4', 'fortran_order': False, 'shape': (",
                           static_cast<int64_t>(data.size()) / columns, ", ", columns, "), }");
  header.append((64 - (10 + header.size() + 1) % 64) % 64, ' ');
  header += '\n';
  std::ofstream out(path, std::ios::binary | std::ios::trunc);
  const char size[] = {static_cast<char>(header.size() & 255),
                       static_cast<char>(header.size() >> 8)};
  out.write("\x93NUMPY\x01\x00", 8).write(size, 2) << header;
  out.write(reinterpret_cast<const char*>(data.data()),
            static_cast<std::streamsize>(data.size() * sizeof(float)));
  out.close();
  return out ? Status() : unavailable(path, ": cannot be written");
}

Status eval_logits(const LogitsFlags& f, const CommonFlags& common) {
  RK_TRY(Spec spec, read_spec(f.input));
  Progress progress(true);
  RK_TRY(const std::string path, resolve_or_pull_model(common.model, progress));
  RK_TRY(auto options, engine_options(common, path));
  if (!spec.plan_path.empty()) options.plan = spec.plan_path;
  options.plan_json = spec.plan_json;
  RK_TRY(auto engine, engine::Engine::create(options));
  std::vector<float> logits;
  engine::Request& request = spec.request;
  if (request.mode == engine::Mode::kPrefix && request.spans.size() > 1) {  // prime the cache
    engine::Request first = request;
    first.spans.pop_back();
    RK_RETURN_IF_ERROR(engine->evaluate(first, 1, logits, nullptr));
  }
  engine::RequestStats stats;
  RK_RETURN_IF_ERROR(engine->evaluate(request, spec.rows, logits, &stats));
  RK_RETURN_IF_ERROR(write_npy(f.out, logits, engine->vocab_size()));
  std::cout << json::object{{"mode", engine::mode_name(stats.mode)},
                            {"rows", static_cast<int64_t>(logits.size()) / engine->vocab_size()},
                            {"prompt_tokens", stats.prompt_tokens},
                            {"prefix_cached", stats.prefix_cached},
                            {"document_cached", stats.document_cached},
                            {"recomputed", stats.recomputed},
                            {"fresh", stats.fresh}}
            << "\n";
  return {};
}

}  // namespace

/// redknot eval logits: float32 logits of the path that answers, for parity checks.
Command cmd_eval_logits() {
  return {
      .name = "eval logits",
      .summary = "logits of a prompt given as spans of token ids, as .npy",
      .examples = "  redknot eval logits -m smollm2 --input spec.json --out logits.npy\n",
      .uses = kUsesModel | kUsesPlan | kUsesEngine | kUsesJson,
      .declare = [](Flags& flags, const CommonFlags& common) -> Action {
        auto f = std::make_shared<LogitsFlags>();
        flags.add("--input", f->input, "the spec, JSON (required)");
        flags.add("--out", f->out, "where the .npy goes (required)");
        return {[f, &common] { return eval_logits(*f, common); },
                [f]() -> Status {
                  if (f->input.empty()) return invalid_argument("--input is required");
                  if (f->out.empty()) return invalid_argument("--out is required");
                  return {};
                }};
      },
  };
}

}  // namespace rk::cli
