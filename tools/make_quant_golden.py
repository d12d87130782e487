#!/usr/bin/env python3
"""Random blocks of every GGUF block format and their values by the `gguf` package.

Writes tests/golden/quant/<format>.bin: the blocks, then the values as little-endian float32.
Needs numpy and gguf.
"""
import pathlib

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType as Q
from gguf.quants import dequantize

BLOCKS = 6
F16_AT = {"Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0],
          "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208]}

out = pathlib.Path(__file__).parent.parent / "tests/golden/quant"
out.mkdir(parents=True, exist_ok=True)
rng = np.random.default_rng(7)
for name, places in F16_AT.items():
    _, num_bytes = GGML_QUANT_SIZES[Q[name]]
    blocks = rng.integers(0, 256, (BLOCKS, num_bytes), dtype=np.uint8)
    for at in places:  # finite scales, a subnormal one and a zero among them
        scales = (rng.standard_normal(BLOCKS) * 0.1).astype(np.float16)
        scales[0], scales[1] = np.float16(3e-7), 0
        blocks[:, at:at + 2] = scales.view(np.uint8).reshape(BLOCKS, 2)
    values = dequantize(blocks, Q[name]).astype("<f4")
    (out / f"{name.lower()}.bin").write_bytes(blocks.tobytes() + values.tobytes())
