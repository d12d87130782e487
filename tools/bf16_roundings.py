#!/usr/bin/env python3
"""What each rounding to bf16 on a card costs, by placing them one after the other in f32 arithmetic on the host.

A step on a card multiplies bf16 by bf16, sums in f32 and keeps the residual stream, the softmax's sums and the logits
in f32. What it rounds to bf16 has a name here:
  w we         weights of the layers; of the vocabulary        n nf   norms' outputs; the last one's
  qo ko vo     outputs of the QKV product, and its bias        q k v  q as turned, K and V as they lie in pages
  p o          probabilities, attention's output               gu h   gate and up as they come, silu(gate) * up
For each setting prints mean and largest KL from the unrounded run and the share of the same most likely token.

usage: bf16_roundings.py --model FILE.gguf SPEC.json... [--setting all --setting ko+k --setting all-qo-ko-vo ...]

SPEC files are inputs of `redknot eval logits` (one span). Llama and Qwen2 files. Needs torch, gguf.
"""
import argparse
import json

import gguf
import numpy as np
import torch

NAMES = ["w", "we", "n", "nf", "qo", "ko", "vo", "q", "k", "v", "p", "o", "gu", "h"]
OPERANDS = [name for name in NAMES if name not in ("qo", "ko", "vo", "gu")]  # what bf16 products want anyway


class Model:
    def __init__(self, path):
        reader = gguf.GGUFReader(path)
        arch = bytes(reader.fields["general.architecture"].parts[-1]).decode()

        def number(key):
            field = reader.fields[f"{arch}.{key}"]
            return field.parts[field.data[0]][0]

        self.interleaved = arch == "llama"
        self.layers, self.heads = int(number("block_count")), int(number("attention.head_count"))
        self.kv_heads = int(number("attention.head_count_kv"))
        self.dim = int(number("embedding_length")) // self.heads
        self.eps, self.base = float(number("attention.layer_norm_rms_epsilon")), float(number("rope.freq_base"))
        self.tensors = {t.name: torch.from_numpy(gguf.quants.dequantize(t.data, t.tensor_type).astype(np.float32))
                        for t in reader.tensors}

    def norm(self, x, name):
        return x * torch.rsqrt(x.double().pow(2).mean(-1, keepdim=True) + self.eps).float() * self.tensors[name]

    def turn(self, x):
        angle = torch.arange(len(x)).double()[:, None] / self.base ** (
            torch.arange(0, self.dim, 2, dtype=torch.float64) / self.dim)
        c, s = angle.cos().float()[:, None], angle.sin().float()[:, None]
        if self.interleaved:
            a, b = x[..., 0::2], x[..., 1::2]
            return torch.stack([a * c - b * s, b * c + a * s], -1).flatten(-2)
        a, b = x[..., :self.dim // 2], x[..., self.dim // 2:]
        return torch.cat([a * c - b * s, b * c + a * s], -1)

    @torch.no_grad()
    def logits(self, ids, rounded):
        def at(name, x):
            return x.to(torch.bfloat16).float() if name in rounded else x

        def product(x, name, place="w"):
            return x @ at(place, self.tensors[name]).T

        x, t = at("we", self.tensors["token_embd.weight"])[torch.tensor(ids)], len(ids)
        mask = torch.full((t, t), float("-inf")).triu(1)
        for layer in (f"blk.{i}." for i in range(self.layers)):
            normed, heads = at("n", self.norm(x, layer + "attn_norm.weight")), {}
            for part, count in (("q", self.heads), ("k", self.kv_heads), ("v", self.kv_heads)):
                bias = self.tensors.get(f"{layer}attn_{part}.bias", torch.zeros(1))
                out = at(part + "o", product(normed, f"{layer}attn_{part}.weight") + at(part + "o", bias))
                out = out.view(t, count, self.dim)
                heads[part] = at(part, out if part == "v" else self.turn(out))
            k, v = (heads[part].repeat_interleave(self.heads // self.kv_heads, 1) for part in "kv")
            scores = torch.einsum("qhd,khd->hqk", heads["q"], k) / self.dim ** 0.5 + mask
            weights = (scores - scores.max(-1, keepdim=True).values).exp()
            o = torch.einsum("hqk,khd->qhd", at("p", weights), v) / weights.sum(-1).T[..., None]
            x = x + product(at("o", o).reshape(t, -1), layer + "attn_output.weight")
            normed = at("n", self.norm(x, layer + "ffn_norm.weight"))
            gate, up = (at("gu", product(normed, f"{layer}ffn_{part}.weight")) for part in ("gate", "up"))
            x = x + product(at("h", torch.nn.functional.silu(gate) * up), layer + "ffn_down.weight")
        output = "output.weight" if "output.weight" in self.tensors else "token_embd.weight"
        return product(at("nf", self.norm(x, "output_norm.weight")), output, "we")


def names_of(setting):
    if setting == "operands":
        return OPERANDS
    if setting.split("-")[0] == "all":
        return [name for name in NAMES if name not in setting.split("-")[1:]]
    return setting.split("+")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--setting", action="append")
    parser.add_argument("specs", nargs="+")
    arguments = parser.parse_args()
    model, inputs = Model(arguments.model), []
    for path in arguments.specs:
        with open(path, encoding="utf-8") as spec:
            inputs.append(json.load(spec)["spans"][0]["tokens"])
    wanted = [torch.log_softmax(model.logits(ids, []), -1) for ids in inputs]
    for setting in arguments.setting or ["all", "operands", *NAMES]:
        rounded, kl, same = names_of(setting), [], []
        if unknown := set(rounded) - set(NAMES):
            parser.error(f"--setting {setting}: {', '.join(unknown)} is none of {', '.join(NAMES)}")
        for ids, want in zip(inputs, wanted):
            got = torch.log_softmax(model.logits(ids, rounded), -1)
            kl.append((want.exp() * (want - got)).sum(-1))
            same.append(want.argmax(-1) == got.argmax(-1))
        kl, same = torch.cat(kl), torch.cat(same)
        print(f"{setting:16} rows {len(kl)}  mean KL {kl.mean():.2e}  max {kl.max():.2e}  "
              f"same token {same.float().mean():.4f}", flush=True)


if __name__ == "__main__":
    main()
