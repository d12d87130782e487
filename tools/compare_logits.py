#!/usr/bin/env python3
"""A GGUF model in redknot beside transformers on the same file, dequantised, at every position.

Prints and writes, per setting, over all positions of the texts: mean KL(transformers || redknot), agreement of
the most likely token, and the largest difference of a logit over the largest logit.

usage: compare_logits.py --model FILE.gguf --redknot build/redknot --out OUT.json [--tokens 700] TEXT...

TEXT files are tokenised by redknot itself and cut to --tokens. Settings are `name=flags` (--setting, may
repeat), e.g. "fast=" and "reference=--kernel gemm=ref --kernel seg_attn=ref --kv-dtype f32". Needs torch,
transformers, gguf.
"""
import argparse
import datetime
import json
import os
import pathlib
import subprocess
import tempfile

import numpy as np
import torch
from transformers import AutoModelForCausalLM

DEFAULT_SETTINGS = ["fast=", "reference=--kernel gemm=ref --kernel seg_attn=ref --kv-dtype f32"]


def output_of(command, **more):
    return subprocess.run(command, check=True, capture_output=True, text=True, **more).stdout


def tokens_of(arguments, path):
    with open(path, encoding="utf-8") as text:
        return json.loads(output_of([arguments.redknot, "eval", "tokens", "-m", arguments.model],
                                    stdin=text))[:arguments.tokens]


def logits_of(arguments, flags, ids, folder):
    spec, out = pathlib.Path(folder, "spec.json"), pathlib.Path(folder, "out.npy")
    spec.write_text(json.dumps({"mode": "dense", "spans": [{"tokens": ids}], "rows": "all"}))
    output_of([arguments.redknot, "eval", "logits", "-m", arguments.model, "--input", str(spec), "--out", str(out),
               *flags.split()])
    return np.load(out)


def compare(theirs, ours):
    p, q = torch.log_softmax(torch.tensor(theirs).double(), -1), torch.log_softmax(torch.tensor(ours).double(), -1)
    return ((p.exp() * (p - q)).sum(-1).numpy(), (theirs.argmax(-1) == ours.argmax(-1)),
            np.abs(theirs - ours).max() / np.abs(theirs).max())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--redknot", default="build/redknot")
    parser.add_argument("--out", required=True)
    parser.add_argument("--tokens", type=int, default=700)
    parser.add_argument("--setting", action="append")
    parser.add_argument("texts", nargs="+")
    arguments = parser.parse_args()
    settings = [s.split("=", 1) for s in arguments.setting or DEFAULT_SETTINGS]

    folder, name = os.path.split(arguments.model)
    model = AutoModelForCausalLM.from_pretrained(folder or ".", gguf_file=name, dtype=torch.float32).eval()
    found = {setting: {"kl": [], "same": [], "largest": []} for setting, _ in settings}
    with tempfile.TemporaryDirectory() as scratch, torch.no_grad():
        for text in arguments.texts:
            ids = tokens_of(arguments, text)
            theirs = model(torch.tensor([ids])).logits[0].float().numpy()
            for setting, flags in settings:
                kl, same, largest = compare(theirs, logits_of(arguments, flags, ids, scratch))
                found[setting]["kl"].extend(kl)
                found[setting]["same"].extend(same)
                found[setting]["largest"].append(float(largest))
                print(f"{os.path.basename(text)} {setting}: {len(ids)} rows, KL {kl.mean():.2e}, same token "
                      f"{same.mean():.4f}, max |dlogit| / max |logit| {largest:.2e}", flush=True)
    results = [{
        "setting": setting, "flags": flags, "rows": len(found[setting]["kl"]),
        "mean_kl": float(np.mean(found[setting]["kl"])), "max_kl": float(np.max(found[setting]["kl"])),
        "same_token": float(np.mean(found[setting]["same"])), "max_logit_error": max(found[setting]["largest"]),
    } for setting, flags in settings]
    with open(arguments.out, "w", encoding="utf-8") as f:
        json.dump({"bench": "compare_logits", "model": name, "texts": len(arguments.texts),
                   "redknot": output_of([arguments.redknot, "--version"]).splitlines(),
                   "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
                   "results": results}, f, indent=1)
        f.write("\n")
    for r in results:
        print(f"{r['setting']:10} rows {r['rows']}  mean KL {r['mean_kl']:.2e}  same token {r['same_token']:.4f}  "
              f"max logit error {r['max_logit_error']:.2e}")


if __name__ == "__main__":
    main()
