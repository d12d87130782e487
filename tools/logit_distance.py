#!/usr/bin/env python3
"""How far one file of logits lies from another, row by row: both .npy of `redknot eval logits` for the same input.

Prints JSON: rows, mean and largest KL(REFERENCE || OTHER), the share of rows with the same most likely token, and
for the other rows by how much REFERENCE's first logit leads its second: ties that rounding may turn. Needs numpy.

usage: logit_distance.py REFERENCE.npy OTHER.npy [REFERENCE.npy OTHER.npy ...]
"""
import json
import sys

import numpy as np


def log_softmax(row):
    row = row.astype(np.float64)
    row -= row.max()
    return row - np.log(np.exp(row).sum())


def main():
    paths = sys.argv[1:]
    if len(paths) == 0 or len(paths) % 2 != 0:
        sys.exit(__doc__)
    kl, leads = [], []
    for reference, other in zip(paths[::2], paths[1::2]):
        a, b = np.load(reference, mmap_mode="r"), np.load(other, mmap_mode="r")
        if a.shape != b.shape:
            sys.exit(f"{reference} is {a.shape}, {other} is {b.shape}")
        for x, y in zip(a, b):
            p, q = log_softmax(x), log_softmax(y)
            kl.append((np.exp(p) * (p - q)).sum())
            if x.argmax() != y.argmax():
                second, first = np.partition(x, -2)[-2:]
                leads.append(float(first - second))
    print(json.dumps({"rows": len(kl), "mean_kl": float(np.mean(kl)), "max_kl": float(np.max(kl)),
                      "same_token": 1 - len(leads) / len(kl), "other_tokens": len(leads),
                      "largest_lead_lost": max(leads, default=0.0)}))


if __name__ == "__main__":
    main()
