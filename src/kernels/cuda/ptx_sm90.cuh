// Hopper's own instructions (sm_90a), one function each: mbarriers, the bulk tensor copy, wgmma,
// setmaxnreg, named barriers, fences. Only *_sm90.cu include this.
#pragma once

#include <cuda.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>
#include <type_traits>

namespace rk::kernels::ptx {

__device__ inline uint32_t shared_address(const void* p) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}

// mbarriers. A phase ends when `count` threads arrived and all bytes that were announced landed.

__device__ inline void barrier_init(uint64_t* barrier, int count) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)),
               "r"(count));
}
/// Makes initialised barriers known to the copy engine.
__device__ inline void barrier_init_fence() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}
__device__ inline void barrier_arrive(uint64_t* barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(barrier))
               : "memory");
}
__device__ inline void barrier_arrive_expect(uint64_t* barrier, int bytes) {
  asm volatile(
      "mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)),
      "r"(bytes)
      : "memory");
}
/// Waits for the end of the phase with this parity.
__device__ inline void barrier_wait(uint64_t* barrier, uint32_t parity) {
  asm volatile(
      "{\n"
      ".reg .pred done;\n"
      "again:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@!done bra again;\n"
      "}\n" ::"r"(shared_address(barrier)),
      "r"(parity)
      : "memory");
}

/// Barrier `id` of `threads` threads, those that arrive and do not wait included.
__device__ inline void named_sync(int id, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
__device__ inline void named_arrive(int id, int threads) {
  asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

/// Orders this thread's ordinary shared-memory accesses before what the copy engine and the tensor
/// cores do there after the next barrier.
__device__ inline void fence_proxy_async() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

/// Loads a word for the sake of the cache.
__device__ inline uint32_t touch(const void* p) {
  uint32_t word;
  asm volatile("ld.global.b32 %0, [%1];" : "=r"(word) : "l"(p) : "memory");
  return word;
}

/// Brings what lies there, if anything does, to the second-level cache.
__device__ inline void prefetch(const void* p) {
  asm volatile("prefetch.global.L2 [%0];" ::"l"(p) : "memory");
}

template <int kRegisters>
__device__ inline void give_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
template <int kRegisters>
__device__ inline void take_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

/// Copies the box at (0, 0, 0, 0, c4) of a tensor of rank five to shared memory; `barrier` counts
/// its bytes.
__device__ inline void load_box(void* to, const CUtensorMap* map, int c4, uint64_t* barrier) {
  asm volatile(
      "cp.async.bulk.tensor.5d.shared::cluster.global.tile.mbarrier::complete_tx::bytes "
      "[%0], [%1, {%2, %2, %2, %2, %3}], [%4];" ::"r"(shared_address(to)),
      "l"(map), "r"(0), "r"(c4), "r"(shared_address(barrier))
      : "memory");
}
__device__ inline void prefetch_map(const CUtensorMap* map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}

/// Copies `bytes` (of sixteen) that lie side by side; `barrier` counts them. Both ends at 16 bytes.
__device__ inline void load_bytes(void* to, const void* from, int bytes, uint64_t* barrier) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::
          "r"(shared_address(to)),
      "l"(from), "r"(bytes), "r"(shared_address(barrier))
      : "memory");
}

/// 2^x, flushing denormals: -inf gives 0.
__device__ inline float exp2_approx(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// wgmma: a warpgroup's product of 64 x 16 by 16 x N, accumulated in f32 registers.

/// Shared-memory operand in atoms of 8 rows of 128 bytes, 128-byte swizzle. K-major operands:
/// `stride` is from one group of eight rows to the next. MN-major ones (rows along K): `stride` is
/// from eight rows to the next eight, `leading` from 64 columns to the next 64.
__device__ inline uint64_t operand(uint32_t address, int leading, int stride) {
  return uint64_t{1} << 62 | static_cast<uint64_t>(stride >> 4) << 32 |
         static_cast<uint64_t>(leading >> 4) << 16 | (address & 0x3FFFF) >> 4;
}
__device__ inline void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ inline void wgmma_commit() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
/// Until at most kPending groups are under way. Accumulators need `settle` before they are read.
template <int kPending>
__device__ inline void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}
/// Keeps the compiler from moving uses of accumulators across the wait before it.
template <int N>
__device__ inline void settle(float (&acc)[N]) {
#pragma unroll
  for (int i = 0; i < N; ++i) asm volatile("" : "+f"(acc[i])::"memory");
}

// clang-format off
#define RK_ACC32(d) \
  "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]), \
  "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15]), \
  "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23]), \
  "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31])
#define RK_LIST32 \
  "{" "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, " \
  "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31" "}, "
#define RK_ACC64(d) \
  "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]), \
  "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15]), \
  "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23]), \
  "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31]), \
  "+f"(d[32]), "+f"(d[33]), "+f"(d[34]), "+f"(d[35]), "+f"(d[36]), "+f"(d[37]), "+f"(d[38]), "+f"(d[39]), \
  "+f"(d[40]), "+f"(d[41]), "+f"(d[42]), "+f"(d[43]), "+f"(d[44]), "+f"(d[45]), "+f"(d[46]), "+f"(d[47]), \
  "+f"(d[48]), "+f"(d[49]), "+f"(d[50]), "+f"(d[51]), "+f"(d[52]), "+f"(d[53]), "+f"(d[54]), "+f"(d[55]), \
  "+f"(d[56]), "+f"(d[57]), "+f"(d[58]), "+f"(d[59]), "+f"(d[60]), "+f"(d[61]), "+f"(d[62]), "+f"(d[63])
#define RK_LIST64 \
  "{" "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, " \
  "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, " \
  "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, " \
  "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63" "}, "
#define RK_WGMMA_SS32(type) \
  asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %34, 0;\n" \
               "wgmma.mma_async.sync.aligned.m64n64k16.f32." type "." type " " RK_LIST32 \
               "%32, %33, p, 1, 1, 0, 0;\n}\n" \
               : RK_ACC32(d) : "l"(a), "l"(b), "r"(accumulate))
#define RK_WGMMA_RS32(type) \
  asm volatile("{\n.reg .pred p;\nsetp.eq.b32 p, 0, 0;\n" \
               "wgmma.mma_async.sync.aligned.m64n64k16.f32." type "." type " " RK_LIST32 \
               "{%32, %33, %34, %35}, %36, p, 1, 1, 1;\n}\n" \
               : RK_ACC32(d) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b))
#define RK_WGMMA_SS64(type) \
  asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %66, 0;\n" \
               "wgmma.mma_async.sync.aligned.m64n128k16.f32." type "." type " " RK_LIST64 \
               "%64, %65, p, 1, 1, 0, 0;\n}\n" \
               : RK_ACC64(d) : "l"(a), "l"(b), "r"(accumulate))
#define RK_WGMMA_RS64(type) \
  asm volatile("{\n.reg .pred p;\nsetp.eq.b32 p, 0, 0;\n" \
               "wgmma.mma_async.sync.aligned.m64n128k16.f32." type "." type " " RK_LIST64 \
               "{%64, %65, %66, %67}, %68, p, 1, 1, 1;\n}\n" \
               : RK_ACC64(d) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b))
// clang-format on

/// d (+)= a * b^T; a and b K-major in shared memory, N = 2 * kAcc columns.
template <class T, int kAcc>
__device__ inline void wgmma_ss(float (&d)[kAcc], uint64_t a, uint64_t b, int accumulate) {
  static_assert(kAcc == 32 || kAcc == 64);
  if constexpr (std::is_same_v<T, __nv_bfloat16>) {
    if constexpr (kAcc == 32) {
      RK_WGMMA_SS32("bf16");
    } else {
      RK_WGMMA_SS64("bf16");
    }
  } else {
    if constexpr (kAcc == 32) {
      RK_WGMMA_SS32("f16");
    } else {
      RK_WGMMA_SS64("f16");
    }
  }
}
/// d += a * b; a in registers (pairs along K), b MN-major in shared memory.
template <class T, int kAcc>
__device__ inline void wgmma_rs(float (&d)[kAcc], const uint32_t* a, uint64_t b) {
  static_assert(kAcc == 32 || kAcc == 64);
  if constexpr (std::is_same_v<T, __nv_bfloat16>) {
    if constexpr (kAcc == 32) {
      RK_WGMMA_RS32("bf16");
    } else {
      RK_WGMMA_RS64("bf16");
    }
  } else {
    if constexpr (kAcc == 32) {
      RK_WGMMA_RS32("f16");
    } else {
      RK_WGMMA_RS64("f16");
    }
  }
}
#undef RK_ACC32
#undef RK_LIST32
#undef RK_WGMMA_SS32
#undef RK_WGMMA_RS32
#undef RK_ACC64
#undef RK_LIST64
#undef RK_WGMMA_SS64
#undef RK_WGMMA_RS64

/// Two neighbours along K, as the register operand holds them.
template <class T>
__device__ inline uint32_t pack(float lo, float hi) {
  if constexpr (std::is_same_v<T, __nv_bfloat16>) {
    const __nv_bfloat162 pair = __floats2bfloat162_rn(lo, hi);
    return reinterpret_cast<const uint32_t&>(pair);
  } else {
    const __half2 pair = __floats2half2_rn(lo, hi);
    return reinterpret_cast<const uint32_t&>(pair);
  }
}

}  // namespace rk::kernels::ptx
