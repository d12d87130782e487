#!/usr/bin/env python3
"""Causal attention through PyTorch on this card, cuDNN and flash: the ceiling of a prompt's kernel.

Keys are expanded to the query heads' number by the library (enable_gqa); FLOPs are the visible
pairs', 4 * D each, as `redknot bench kernels` counts them.
"""
import statistics
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention as attention


def milliseconds(call, rounds=7, calls=3):
    times = []
    for i in range(rounds + 1):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        for _ in range(calls):
            call()
        end.record()
        torch.cuda.synchronize()
        if i > 0:
            times.append(begin.elapsed_time(end) / calls)
    return statistics.median(times)


def main():
    print(torch.cuda.get_device_name(), "torch", torch.__version__, "cuDNN", torch.backends.cudnn.version())
    for backend in (SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION):
        for heads, kv_heads, dim, keys in ((32, 8, 128, 16384), (32, 8, 128, 32768), (32, 8, 128, 65536),
                                           (32, 8, 64, 16384), (16, 4, 256, 16384)):
            q = torch.randn(1, heads, keys, dim, device="cuda", dtype=torch.bfloat16)
            k, v = (torch.randn(1, kv_heads, keys, dim, device="cuda", dtype=torch.bfloat16) for _ in range(2))
            try:
                with sdpa_kernel(backend):
                    ms = milliseconds(lambda: attention(q, k, v, is_causal=True, enable_gqa=True))
            except RuntimeError as error:
                print(f"{backend.name:18} dim {dim} keys {keys}: {str(error).splitlines()[0][:90]}")
                continue
            tflops = 4 * dim * heads * keys * (keys + 1) / 2 / ms / 1e9
            print(f"{backend.name:18} heads {heads}/{kv_heads} dim {dim} keys {keys}: {ms:.3f} ms {tflops:.1f} TFLOP/s")


if __name__ == "__main__":
    main()
