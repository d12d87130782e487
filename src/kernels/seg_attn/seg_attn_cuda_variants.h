// The variants of seg_attn_cuda(). Private to this folder; built with CUDA only.
#pragma once

#include "kernels/seg_attn/seg_attn_cuda.h"

namespace rk::kernels {

/// Items only: writes o (and lse) where an item has no part, else part_o and part_lse. Row m of an
/// item's part p lies at row m - m_begin of part_o[p] [128, D] (divided by its own sum) and of
/// part_lse[p] (natural log; -inf where the part shows the row nothing, and o is 0). Arguments are
/// checked by the caller. Errors: kUnimplemented where the variant cannot (a pool that TMA cannot
/// describe, rotary_dim not of whole sixteens); kInternal where the launch fails.
Status seg_attn_sm90(const SegAttnCudaArgs& args, Stream stream);
Status seg_attn_sm80(const SegAttnCudaArgs& args, Stream stream);

/// Merges the parts of args.merges into o and lse.
Status seg_attn_merge(const SegAttnCudaArgs& args, Stream stream);

}  // namespace rk::kernels
