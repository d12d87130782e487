// The inner loops of the fast variants, written once over a handful of vector operations. An ISA
// file defines, in its anonymous namespace, before including this:
//   F32, I32                    f32 and int8/int32 vectors of kLanes lanes
//   kLanes, kTileRows, vecs(r)  lanes; rows of a tile; vectors held side by side for r rows
//   Dots<bits>                  start(init), step(quad, codes, x), total(): int8 dot products
//   load, splat and arithmetic  named as used below
// Every path adds in the same order, so that a row's result is the same in each of them.
//
// Everything lives in an anonymous namespace: instruction sets must not share code.
#include "kernels/gemm/layout.h"

namespace rk::kernels::gemm_detail {
namespace {

constexpr int kTileGroupBytes = kTileRows * kTileRowBytes;
#define RK_UNROLL _Pragma("GCC unroll 16")

/// Reads a packed block of format F, group after group; `at` is the byte of the pass's first lane.
template <int F>
struct Packed {
  static constexpr FormatInfo kInfo = kFormats[F];
  static constexpr int kBits = kInfo.bits;
  static constexpr bool kHasMin = kInfo.has_min, kHalves = kInfo.halves;
  static constexpr bool kSuper = kInfo.groups > 1;

  const uint8_t* group;
  const uint8_t* header = nullptr;
  int lane;
  int until_header = 0;

  Packed(const uint8_t* block, int first_lane) : group(block), lane(first_lane) { enter(); }

  void enter() {
    if constexpr (!kSuper) return;
    if (until_header == 0) {
      header = group;
      group += kInfo.header_bytes;
      until_header = kInfo.groups;
    }
    --until_header;
  }
  void next() {
    group += kInfo.group_bytes;
    enter();
  }
  void skip(int64_t groups) {
    for (int64_t i = 0; i < groups; ++i) next();
  }
  void prefetch() const {
    RK_UNROLL
    for (int i = 0; i < kInfo.group_bytes; i += 64) {
      __builtin_prefetch(group + kPrefetchBytes + i, 0, 3);
    }
  }

  I32 code(int quad, int v) const {
    const uint8_t* p = group + (lane + v * kLanes) * 4;
    if constexpr (kBits == 8) return load_codes(p + quad * 128);
    const I32 raw = load_codes(p + quad % 4 * 128);
    const I32 low = and_bytes<0x0f>(quad < 4 ? raw : shift_right<4>(raw));
    if constexpr (kBits == 5) {
      const I32 high = load_codes(p + 512);
      return or_bytes(low, and_bytes<0x10>(shift(high, 4 - quad)));
    } else if constexpr (kBits == 6) {
      const I32 high = load_codes(p + 512 + quad / 4 * 128);
      return or_bytes(low, and_bytes<0x30>(shift(high, 4 - quad % 4 * 2)));
    } else {
      return low;
    }
  }
  F32 scale(int half, int v) const {
    const int i = lane + v * kLanes;
    const uint8_t* tail = group + kInfo.code_bytes;
    if constexpr (kHalves) {
      return mul(load_f16(header + 2 * i), load_i8(tail + half * kBlockRows + i));
    } else if constexpr (kSuper) {
      return mul(load_f16(header + 2 * i), load_u8(tail + i));
    } else {
      return load_f16(tail + 2 * i);
    }
  }
  F32 min(int v) const {
    const int i = lane + v * kLanes;
    const uint8_t* tail = group + kInfo.code_bytes;
    if constexpr (kSuper) {
      return sub(zero_f32(), mul(load_f16(header + 64 + 2 * i), load_u8(tail + kBlockRows + i)));
    } else {
      return load_f16(tail + 64 + 2 * i);
    }
  }
};

/// Reads an expanded panel made from format F.
template <int F>
struct Panel {
  static constexpr FormatInfo kInfo = kFormats[F];
  static constexpr int kBits = kInfo.bits;
  static constexpr bool kHasMin = kInfo.has_min, kHalves = kInfo.halves;

  const uint8_t* group;
  int lane;

  Panel(const uint8_t* panel, int first_lane) : group(panel), lane(first_lane) {}
  void next() { group += kPanelGroupBytes; }
  void prefetch() const {}
  I32 code(int quad, int v) const {
    return load_codes(group + quad * 128 + (lane + v * kLanes) * 4);
  }
  F32 scale(int half, int v) const { return load_f32(tail(half, v)); }
  F32 min(int v) const { return load_f32(tail(1, v)); }
  const float* tail(int which, int v) const {
    return reinterpret_cast<const float*>(group + 1024 + which * 128) + lane + v * kLanes;
  }
};

/// acc[R][32] += x w over `groups`.
template <class Source, int R>
void multiply(const uint8_t* w, int64_t groups, const uint8_t* tile, float* acc) {
  constexpr int kVecs = vecs(R), kParts = Source::kHalves ? 2 : 1, kQuads = 8 / kParts;
  constexpr bool kZero = !Source::kHasMin;
  for (int lane = 0; lane < kBlockRows; lane += kVecs * kLanes) {
    F32 sum[R][kVecs];
    RK_UNROLL
    for (int r = 0; r < R; ++r) {
      RK_UNROLL
      for (int v = 0; v < kVecs; ++v)
        sum[r][v] = load_f32(acc + r * kBlockRows + lane + v * kLanes);
    }
    Source source(w, lane);
    const uint8_t* x = tile;
    for (int64_t g = 0; g < groups; ++g) {
      const float* xs = reinterpret_cast<const float*>(x + 32 * kTileRows);
      const int32_t* init = reinterpret_cast<const int32_t*>(xs + 2 * kTileRows);
      source.prefetch();
      RK_UNROLL
      for (int part = 0; part < kParts; ++part) {
        Dots<Source::kBits> dots[R][kVecs];
        RK_UNROLL
        for (int r = 0; r < R; ++r) {
          RK_UNROLL
          for (int v = 0; v < kVecs; ++v) {
            kZero ? dots[r][v].start(init[part * kTileRows + r]) : dots[r][v].start_zero();
          }
        }
        RK_UNROLL
        for (int i = 0; i < kQuads; ++i) {
          const int quad = part * kQuads + i;
          I32 code[kVecs];
          RK_UNROLL
          for (int v = 0; v < kVecs; ++v) code[v] = source.code(quad, v);
          RK_UNROLL
          for (int r = 0; r < R; ++r) {
            const I32 xq = splat_quad(x + r * 32 + quad * 4);
            RK_UNROLL
            for (int v = 0; v < kVecs; ++v) dots[r][v].step(quad, code[v], xq);
          }
        }
        F32 scale[kVecs];
        RK_UNROLL
        for (int v = 0; v < kVecs; ++v) scale[v] = source.scale(part, v);
        RK_UNROLL
        for (int r = 0; r < R; ++r) {
          const F32 s = splat(xs[r]);
          RK_UNROLL
          for (int v = 0; v < kVecs; ++v) {
            sum[r][v] = fma(to_f32(dots[r][v].total()), mul(scale[v], s), sum[r][v]);
          }
        }
      }
      if constexpr (Source::kHasMin) {
        F32 min[kVecs];
        RK_UNROLL
        for (int v = 0; v < kVecs; ++v) min[v] = source.min(v);
        RK_UNROLL
        for (int r = 0; r < R; ++r) {
          const F32 s = splat(xs[kTileRows + r]);
          RK_UNROLL
          for (int v = 0; v < kVecs; ++v) sum[r][v] = fma(min[v], s, sum[r][v]);
        }
      }
      x += kTileGroupBytes;
      if (g + 1 < groups) source.next();
    }
    RK_UNROLL
    for (int r = 0; r < R; ++r) {
      RK_UNROLL
      for (int v = 0; v < kVecs; ++v)
        store_f32(acc + r * kBlockRows + lane + v * kLanes, sum[r][v]);
    }
  }
}

template <int F>
void expand_format(const uint8_t* block, int64_t begin, int64_t end, uint8_t* panel) {
  constexpr FormatInfo kInfo = kFormats[F];
  for (int lane = 0; lane < kBlockRows; lane += kLanes) {
    constexpr int64_t kSuperBytes = kInfo.header_bytes + int64_t{kInfo.groups} * kInfo.group_bytes;
    Packed<F> source(block + begin / kInfo.groups * kSuperBytes, lane);  // chunks begin at headers
    uint8_t* to = panel;
    for (int64_t g = begin; g < end; ++g) {
      RK_UNROLL
      for (int quad = 0; quad < 8; ++quad)
        store_codes(to + quad * 128 + lane * 4, source.code(quad, 0));
      float* tail = reinterpret_cast<float*>(to + 1024) + lane;
      store_f32(tail, source.scale(0, 0));
      if constexpr (kInfo.has_min) store_f32(tail + kBlockRows, source.min(0));
      if constexpr (kInfo.halves) store_f32(tail + kBlockRows, source.scale(1, 0));
      if (g + 1 < end) source.next();
      to += kPanelGroupBytes;
    }
  }
}

template <int F, int R>
void multiply_plain(const uint8_t* block, int64_t k, const float* x, int64_t x_stride, float* acc) {
  constexpr int kVecs = vecs(R);
  constexpr int kBytes = F == kF32 ? 4 : 2;
  for (int lane = 0; lane < kBlockRows; lane += kVecs * kLanes) {
    F32 sum[R][kVecs];
    RK_UNROLL
    for (int r = 0; r < R; ++r) {
      RK_UNROLL
      for (int v = 0; v < kVecs; ++v)
        sum[r][v] = load_f32(acc + r * kBlockRows + lane + v * kLanes);
    }
    const uint8_t* p = block + lane * kBytes;
    for (int64_t i = 0; i < k; ++i, p += kBlockRows * kBytes) {
      F32 w[kVecs];
      RK_UNROLL
      for (int v = 0; v < kVecs; ++v) {
        const uint8_t* at = p + v * kLanes * kBytes;
        w[v] = F == kF32   ? load_f32(reinterpret_cast<const float*>(at))
               : F == kF16 ? load_f16(at)
                           : load_bf16(at);
      }
      RK_UNROLL
      for (int r = 0; r < R; ++r) {
        const F32 s = splat(x[r * x_stride + i]);
        RK_UNROLL
        for (int v = 0; v < kVecs; ++v) sum[r][v] = fma(w[v], s, sum[r][v]);
      }
    }
    RK_UNROLL
    for (int r = 0; r < R; ++r) {
      RK_UNROLL
      for (int v = 0; v < kVecs; ++v)
        store_f32(acc + r * kBlockRows + lane + v * kLanes, sum[r][v]);
    }
  }
}

void quantize_tile(const float* x, int64_t x_stride, int rows, int64_t num_groups, int zero_point,
                   bool halves, uint8_t* tile) {
  for (int64_t g = 0; g < num_groups; ++g, tile += kTileGroupBytes) {
    float* scales = reinterpret_cast<float*>(tile + 32 * kTileRows);
    int32_t* init = reinterpret_cast<int32_t*>(scales + 2 * kTileRows);
    for (int r = 0; r < rows; ++r) {
      int32_t sums[2];
      const float* values = x + r / kTerms * x_stride + g * kGroup;
      float rest[kGroup];
      if (r % kTerms != 0) {  // the second term: what the first one left
        const auto* first = reinterpret_cast<const int8_t*>(tile + (r - 1) * 32);
        for (int i = 0; i < kGroup; ++i) {
          rest[i] = values[i] - scales[r - 1] * static_cast<float>(first[i]);
        }
        values = rest;
      }
      const float scale = quantize_group(values, tile + r * 32, sums);
      const int32_t sum = sums[0] + sums[1];
      scales[r] = scale;
      scales[kTileRows + r] = scale * static_cast<float>(sum);
      init[r] = -zero_point * (halves ? sums[0] : sum);
      init[kTileRows + r] = -zero_point * sums[1];
    }
  }
}

using MultiplyFn = void (*)(const uint8_t* w, int64_t groups, const uint8_t* tile, float* acc);
using PlainFn = void (*)(const uint8_t* block, int64_t k, const float* x, int64_t x_stride,
                         float* acc);
using ExpandFn = void (*)(const uint8_t* block, int64_t begin, int64_t end, uint8_t* panel);
template <class Fn>
struct ByRows {
  Fn fn[kTileRows];
};
template <int... I>
struct Rows {};
template <int N, int... I>
struct MakeRows : MakeRows<N - 1, N, I...> {};
template <int... I>
struct MakeRows<0, I...> {
  using Type = Rows<I...>;
};
using AllRows = MakeRows<kTileRows>::Type;  // 1, 2, ... kTileRows

template <class Source, int... R>
constexpr ByRows<MultiplyFn> multiplies(Rows<R...>) {
  return {{multiply<Source, R>...}};
}
template <int F, int... R>
constexpr ByRows<PlainFn> plains(Rows<R...>) {
  return {{multiply_plain<F, R>...}};
}

constexpr ByRows<MultiplyFn> kFew[] = {
    multiplies<Packed<kSym4>>(AllRows{}),   multiplies<Packed<kMin4>>(AllRows{}),
    multiplies<Packed<kSym5>>(AllRows{}),   multiplies<Packed<kMin5>>(AllRows{}),
    multiplies<Packed<kSym8>>(AllRows{}),   multiplies<Packed<kSuper4>>(AllRows{}),
    multiplies<Packed<kSuper5>>(AllRows{}), multiplies<Packed<kSuper6>>(AllRows{}),
};
constexpr ByRows<MultiplyFn> kTile[] = {
    multiplies<Panel<kSym4>>(AllRows{}), multiplies<Panel<kMin4>>(AllRows{}),
    multiplies<Panel<kSym5>>(AllRows{}), multiplies<Panel<kMin5>>(AllRows{}),
    multiplies<Panel<kSym8>>(AllRows{}), multiplies<Panel<kMin4>>(AllRows{}),
    multiplies<Panel<kMin5>>(AllRows{}), multiplies<Panel<kSuper6>>(AllRows{}),
};
constexpr ByRows<PlainFn> kPlain[] = {plains<kF32>(AllRows{}), plains<kF16>(AllRows{}),
                                      plains<kBf16>(AllRows{})};
constexpr ExpandFn kExpand[] = {
    expand_format<kSym4>, expand_format<kMin4>,   expand_format<kSym5>,   expand_format<kMin5>,
    expand_format<kSym8>, expand_format<kSuper4>, expand_format<kSuper5>, expand_format<kSuper6>,
};

void few(Format format, const uint8_t* block, int64_t num_groups, const uint8_t* tile, int rows,
         float* acc) {
  for (int i = 0; i < rows * kBlockRows; ++i) acc[i] = 0;
  kFew[format].fn[rows - 1](block, num_groups, tile, acc);
}
void expand(Format format, const uint8_t* block, int64_t begin, int64_t end, uint8_t* panel) {
  kExpand[format](block, begin, end, panel);
}
void tile(Format format, const uint8_t* panel, int64_t num_groups, const uint8_t* tile, int rows,
          float* acc) {
  kTile[format].fn[rows - 1](panel, num_groups, tile, acc);
}
void plain(Format format, const uint8_t* block, int64_t k, const float* x, int64_t x_stride,
           int rows, float* acc) {
  kPlain[format - kF32].fn[rows - 1](block, k, x, x_stride, acc);
}

}  // namespace
}  // namespace rk::kernels::gemm_detail
