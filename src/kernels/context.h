// What a kernel call runs on, and the table that picks its variant.
//
// An op `x` lives in kernels/x/: x.h (formula, Args), x_ref.cc (the specification), x_<isa>.cc
// (variants), x.cc (argument check and table, fastest first, the reference last). Files named
// *_avx2.cc, *_avx512.cc, *_vnni.cc, *_bf16.cc, *_amx.cc are compiled for that instruction set:
// everything in them must have internal linkage except the entry points, and they include no
// header with inline functions that other files use too (the linker would keep one copy, perhaps
// theirs).
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/cpu.h"
#include "base/status.h"
#include "base/thread_pool.h"
#include "kernels/work.h"

namespace rk::kernels {

/// `--kernel OP=VARIANT`, e.g. {"gemm": "ref"}; an absent op takes the fastest that runs here.
using ForcedVariants = std::map<std::string, std::string, std::less<>>;

/// Engine thread only. Borrowed pieces outlive it.
struct Context {
  ThreadPool* pool = nullptr;  ///< null: run on the calling thread
  const ForcedVariants* forced = nullptr;
  Work work = {};  ///< counted by the ops that do nearly all of it: gemm, seg_attn, attn_mass

  /// The variant forced for `op`, or "" for the fastest.
  std::string_view forced_variant(std::string_view op) const {
    if (forced == nullptr) return {};
    const auto it = forced->find(op);
    return it == forced->end() ? std::string_view{} : std::string_view(it->second);
  }
};

/// One row of an op's table.
template <class Args>
struct Variant {
  const char* name;
  bool (*runs_here)();                 ///< this processor can
  bool (*supports)(const Args& args);  ///< these arguments can
  Status (*run)(const Args& args, Context& ctx);
};

inline bool on_any() { return true; }
inline bool on_avx2() { return cpu_features().avx2; }
inline bool on_avx512() { return cpu_features().avx512; }

/// Runs the forced variant, or the first of `table` that can.
/// Errors: kInvalidArgument for an unknown name; kUnimplemented where a forced one cannot run.
template <class Args, size_t N>
Status dispatch(const char* op, const Variant<Args> (&table)[N], const Args& args, Context& ctx) {
  const std::string_view want = ctx.forced_variant(op);
  for (const Variant<Args>& v : table) {
    if (!want.empty() && want != v.name) continue;
    if (v.runs_here() && v.supports(args)) return v.run(args, ctx);
    if (!want.empty()) {
      return unimplemented("--kernel ", op, "=", want, ": cannot run here or not for these shapes");
    }
  }
  std::string known;
  for (const Variant<Args>& v : table) known += cat(known.empty() ? "" : ", ", v.name);
  return invalid_argument("--kernel ", op, "=", want, ": no such variant; known: ", known);
}

/// parallel_for over ctx.pool, or inline without one.
inline void parallel_for(Context& ctx, int64_t n, int64_t grain,
                         const std::function<void(int64_t, int64_t, int)>& body) {
  if (n <= 0) return;
  if (ctx.pool == nullptr) {
    body(0, n, 0);
  } else {
    ctx.pool->parallel_for(n, grain, body);
  }
}
inline int num_threads(const Context& ctx) { return ctx.pool ? ctx.pool->num_threads() : 1; }

}  // namespace rk::kernels
