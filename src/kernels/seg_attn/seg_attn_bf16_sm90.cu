#include "kernels/seg_attn/seg_attn_sm90_launch.cuh"

namespace rk::kernels::sm90 {

Status launch_bf16(const SegAttnCudaArgs& a, Params& p, Stream stream) {
  return launch_of<__nv_bfloat16>(a, p, stream);
}

}  // namespace rk::kernels::sm90
