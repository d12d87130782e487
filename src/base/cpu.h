// What this processor can do, read once by CPUID (and XGETBV: the OS must save the registers too).
// Kernels choose variants by it at start, never at build time. Immutable.
#pragma once

#include <string>

namespace rk {

struct CpuFeatures {
  bool avx2 = false;         ///< AVX2 + FMA + F16C
  bool avx512 = false;       ///< F + BW + VL + DQ, with AVX2 set too
  bool avx512_vnni = false;  ///< 512-bit int8 dot products
  bool avx512_bf16 = false;
  bool avx_vnni = false;  ///< 256-bit VEX-encoded int8 dot products
  bool amx_int8 = false;
  bool amx_bf16 = false;
};

const CpuFeatures& cpu_features();
/// "avx2 avx512 vnni bf16", for doctor and result files.
std::string cpu_feature_names();
/// The processor's brand string.
std::string cpu_brand();

}  // namespace rk
