#include "base/cpu.h"

#include <cpuid.h>

#include <cstdint>
#include <cstring>

namespace rk {
namespace {

uint64_t xcr0() {
  uint32_t lo = 0, hi = 0;
  __asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
  return (uint64_t{hi} << 32) | lo;
}

CpuFeatures read() {
  CpuFeatures f;
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (!__get_cpuid(1, &a, &b, &c, &d)) return f;
  const bool osxsave = c & (1U << 27), fma = c & (1U << 12), f16c = c & (1U << 29);
  if (!osxsave) return f;
  const uint64_t saved = xcr0();
  const bool ymm = (saved & 0x6) == 0x6, zmm = (saved & 0xe6) == 0xe6;
  const bool tiles = (saved & 0x60000) == 0x60000;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return f;
  f.avx2 = ymm && fma && f16c && (b & (1U << 5));
  f.avx512 =
      zmm && f.avx2 && (b & (1U << 16)) && (b & (1U << 17)) && (b & (1U << 30)) && (b & (1U << 31));
  f.avx512_vnni = f.avx512 && (c & (1U << 11));
  f.amx_int8 = tiles && (d & (1U << 25));
  f.amx_bf16 = tiles && (d & (1U << 22));
  if (__get_cpuid_count(7, 1, &a, &b, &c, &d)) {
    f.avx_vnni = f.avx2 && (a & (1U << 4));
    f.avx512_bf16 = f.avx512 && (a & (1U << 5));
  }
  return f;
}

}  // namespace

const CpuFeatures& cpu_features() {
  static const CpuFeatures features = read();
  return features;
}

std::string cpu_feature_names() {
  const CpuFeatures& f = cpu_features();
  std::string out;
  const auto add = [&](bool has, const char* name) {
    if (has) out += (out.empty() ? "" : " ") + std::string(name);
  };
  add(f.avx2, "avx2");
  add(f.avx512, "avx512");
  add(f.avx512_vnni, "avx512_vnni");
  add(f.avx512_bf16, "avx512_bf16");
  add(f.avx_vnni, "avx_vnni");
  add(f.amx_int8, "amx_int8");
  add(f.amx_bf16, "amx_bf16");
  return out.empty() ? "baseline x86-64" : out;
}

std::string cpu_brand() {
  char brand[49] = {};
  for (unsigned i = 0; i < 3; ++i) {
    unsigned r[4] = {};
    if (!__get_cpuid(0x80000002U + i, &r[0], &r[1], &r[2], &r[3])) return "unknown processor";
    std::memcpy(brand + 16 * i, r, 16);
  }
  return brand;
}

}  // namespace rk
