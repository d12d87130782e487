#!/usr/bin/env python3
"""Tiny random models of every family and the log-probabilities of an independent implementation.

Writes tests/golden/models/<name>/: config.json, model.safetensors (float32) and golden.bin, all
little-endian: "RKG1"; int32 vocab, num_tokens, num_positions, num_docs, num_answers; int32
tokens[num_tokens], positions[num_positions]; float32 logprobs[num_positions, vocab] of the whole
prompt, dense; then the prompt that splices documents: int32 doc_tokens[num_docs], every document
computed alone (no lead), the rest of the tokens as the question; float32 logprobs[num_answers,
vocab] of its last rows. Needs torch and transformers.

usage: make_model_golden.py [NAME...]   (default: all)
"""
import json
import pathlib
import struct
import sys

import numpy as np
import torch
from transformers import (DynamicCache, LlamaConfig, LlamaForCausalLM, MistralConfig,
                          MistralForCausalLM, Qwen2Config, Qwen2ForCausalLM, Qwen3Config,
                          Qwen3ForCausalLM)

VOCAB, TOKENS, POSITIONS, ANSWERS = 256, 640, 96, 24
DOCS = [75, 160, 90]
SPLICED_TOKENS = 360

small = dict(vocab_size=VOCAB, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
             num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=1024,
             bos_token_id=None, eos_token_id=None, attn_implementation="eager")
llama3 = dict(rope_type="llama3", rope_theta=10000.0, factor=4.0, low_freq_factor=1.0,
              high_freq_factor=4.0, original_max_position_embeddings=128)
MODELS = {
    "llama": (LlamaForCausalLM, LlamaConfig(**small, rope_parameters=llama3)),
    "mistral": (MistralForCausalLM, MistralConfig(**small, sliding_window=None)),
    "mistral_window": (MistralForCausalLM, MistralConfig(**small, sliding_window=100)),
    "qwen2": (Qwen2ForCausalLM, Qwen2Config(**small, tie_word_embeddings=True)),
    "qwen3": (Qwen3ForCausalLM, Qwen3Config(**small, head_dim=16)),
    "llama_linear": (LlamaForCausalLM, LlamaConfig(**small, rope_parameters=dict(
        rope_type="linear", rope_theta=10000.0, factor=3.0))),
    "qwen2_yarn": (Qwen2ForCausalLM, Qwen2Config(**small, rope_parameters=dict(
        rope_type="yarn", rope_theta=10000.0, factor=4.0, original_max_position_embeddings=256))),
}


def randomise(model):
    """Weights that matter: sharp attention, norms and biases off their neutral values."""
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "norm" in name:
                p.copy_(1 + 0.2 * torch.randn_like(p))
            elif name.endswith("bias"):
                p.copy_(0.5 * torch.randn_like(p))
            elif "embed_tokens" in name:
                p.copy_((0.4 if model.config.tie_word_embeddings else 1.0) * torch.randn_like(p))
            else:
                gain = 1.5 if "q_proj" in name or "k_proj" in name else 1.0
                p.copy_(gain * torch.randn_like(p) / p.shape[1] ** 0.5)


def logprobs(logits):
    return torch.log_softmax(logits.double(), -1).numpy().astype("<f4")


def spliced(model, tokens):
    """Documents computed apart, each at its own place; the question reads what they left."""
    cache, at = DynamicCache(), 0
    for length in DOCS:
        part = DynamicCache()
        model(tokens[:, at:at + length], position_ids=torch.arange(at, at + length)[None],
              past_key_values=part)
        for i, layer in enumerate(part.layers):
            cache.update(layer.keys, layer.values, i)
        at += length
    out = model(tokens[:, at:], position_ids=torch.arange(at, tokens.shape[1])[None],
                past_key_values=cache)
    return logprobs(out.logits[0, -ANSWERS:])


root = pathlib.Path(__file__).parent.parent / "tests/golden/models"
for index, (name, (cls, config)) in enumerate(MODELS.items()):
    if len(sys.argv) > 1 and name not in sys.argv[1:]:
        continue
    torch.manual_seed(100 + index)
    model = cls(config).float().eval()
    randomise(model)
    folder = root / name
    model.save_pretrained(folder)
    for other in folder.glob("generation_config.json"):
        other.unlink()
    settings = json.loads((folder / "config.json").read_text())
    settings.pop("transformers_version", None)
    (folder / "config.json").write_text(json.dumps(settings, indent=1) + "\n")
    tokens = torch.randint(0, VOCAB, (1, TOKENS))
    positions = np.unique(np.concatenate([[0, 1, 2, 15, 16, 99, 100, 101, TOKENS - 1],
                                          np.linspace(3, TOKENS - 2, POSITIONS - 9).astype(int)]))
    with torch.no_grad():
        dense = logprobs(model(tokens, use_cache=False).logits[0])[positions]
        splices = config.sliding_window is None if hasattr(config, "sliding_window") else True
        docs = DOCS if splices else []
        answers = spliced(model, tokens[:, :SPLICED_TOKENS]) if splices else np.zeros((0, VOCAB))
    with open(folder / "golden.bin", "wb") as out:
        out.write(b"RKG1" + struct.pack("<5i", VOCAB, TOKENS, len(positions), len(docs),
                                        len(answers)))
        out.write(tokens[0].numpy().astype("<i4").tobytes() + positions.astype("<i4").tobytes())
        out.write(dense.tobytes() + struct.pack(f"<{len(docs)}i", *docs))
        out.write(struct.pack("<i", SPLICED_TOKENS) + answers.astype("<f4").tobytes())
    print(name, {f.name: f.stat().st_size for f in sorted(folder.iterdir())}, dense.min())
