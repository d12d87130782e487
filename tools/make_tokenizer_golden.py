#!/usr/bin/env python3
"""Golden files of src/text: small vocabularies of each family and what HF `tokenizers` makes of texts.

  make_tokenizer_golden.py OUT_DIR              the committed files (tests/golden/tokenizer)
  make_tokenizer_golden.py OUT_DIR MODEL.gguf   of a real vocabulary: its tokenizer.json rebuilt, and
                                                many more texts (tests/golden/tokenizer/local)

Each family gives NAME.json (a tokenizer.json) and NAME.golden.jsonl: one {"t": text, "i": ids, and
"d": decoded without special tokens where that is not t} per line. Needs: pip install tokenizers gguf
"""
import json
import os
import random
import sys

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers import processors, trainers

NUM_TEXTS = 420  # per family, seven families
CL100K = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*"
          r"|\s*[\r\n]+|\s+(?!\S)|\s+")
O200K_LIKE = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
              r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
              r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")

SENTENCES = [
    "The quick brown fox jumps over the lazy dog.", "It's what we've said: they'll go, I'm sure; he'd know.",
    "IT'S WE'VE THEY'LL I'M HE'D you'RE", "In 1984, 12,345.67 people paid $3.50 (or 2\u20ac) on 2024-05-17.",
    "def f(x):\n    if x > 0:\n\t\treturn x ** 2  # square\n    return None\n",
    "for (int i = 0; i < n; ++i) { a[i] += b[i] * 0x1F; }\r\n", "{\"key\": [1, 2.5e-3, null, true], \"s\": \"\\n\"}",
    "\u6211\u4eec\u5728\u5317\u4eac\u5b66\u4e60\u4eba\u5de5\u667a\u80fd\u3002\u4f60\u597d\uff0c\u4e16\u754c\uff01",
    "\u3053\u3093\u306b\u3061\u306f\u4e16\u754c\u3002\u30ab\u30bf\u30ab\u30ca\u3068\u6f22\u5b57\u3002", "\uc548\ub155\ud558\uc138\uc694 \uc138\uacc4 \ud55c\uad6d\uc5b4 \ubb38\uc7a5",
    "\u041f\u0440\u0438\u0432\u0435\u0442, \u043c\u0438\u0440! \u0401\u043b\u043a\u0430 \u0439\u043e\u0434.", "\u0645\u0631\u062d\u0628\u0627 \u0628\u0627\u0644\u0639\u0627\u0644\u0645 \u0661\u0662\u0663",
    "\u05e9\u05dc\u05d5\u05dd \u05e2\u05d5\u05dc\u05dd", "\u0928\u092e\u0938\u094d\u0924\u0947 \u0926\u0941\u0928\u093f\u092f\u093e \u0967\u0968\u0969",
    "\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35\u0e0a\u0e32\u0e27\u0e42\u0e25\u0e01", "Z\u00fcrich na\u00efve caf\u00e9 \u00c5ngstr\u00f6m stra\u00dfe \u0130stanbul",
    "cafe\u0301 A\u030angstro\u0308m q\u0323\u0307 \u1e9b\u0323 \ufb01ne \u2460\u00bd\u00b2 \u2126 \u212b",
    "\U0001f600\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466 \U0001f3f3\ufe0f\u200d\U0001f308 \U0001f1e9\U0001f1ea \U0001f44d\U0001f3fd",
    "it\u2019s \u201cquoted\u201d \u2014 dash \u2026 'sa 'LLama x'\u017fy", "https://example.org/a_b?c=d&e=%20#f user@host.net",
    "   leading and trailing   ", "tabs\tand\n\n\nnewlines\r\n\r\n  mixed \n \n x", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "\u00a0nbsp\u2003em\u3000ideographic\u2028line\u0085nel", "\u2581marks\u2581\u2581of \u2581 pieces", "<0x0A> <unk> <s>hi</s> <0x-1>",
]
RANGES = [(0x20, 0x7E), (0x20, 0x7E), (0x30, 0x39), (0x00, 0x1F), (0x80, 0xFF), (0x100, 0x24F), (0x300, 0x36F),
          (0x370, 0x3FF), (0x400, 0x4FF), (0x5D0, 0x5EA), (0x620, 0x669), (0x900, 0x97F), (0xE01, 0xE3A),
          (0x1100, 0x11FF), (0x1E00, 0x1EFF), (0x2000, 0x206F), (0x2070, 0x218B), (0x2200, 0x22FF),
          (0x3000, 0x30FF), (0x4E00, 0x9FA5), (0xAC00, 0xD7A3), (0xFB00, 0xFB06), (0xFF01, 0xFF5E),
          (0x1D400, 0x1D454), (0x1F300, 0x1F64F), (0x1F900, 0x1F9FF), (0x20000, 0x2A6D6), (0xE000, 0xE010)]
SPACES = [" ", "  ", "    ", "\n", "\n\n", "\r\n", "\t", " \n", "\n ", "\u00a0", "\u3000", "   \n\n  ", "\u2003"]


def texts(rng, count, specials):
    out = [""] + SENTENCES + SPACES
    while len(out) < count:
        parts = []
        for _ in range(rng.randint(1, 7)):
            kind = rng.random()
            if kind < 0.3:
                sentence = rng.choice(SENTENCES)
                begin = rng.randrange(len(sentence))
                parts.append(sentence[begin:begin + rng.randint(1, 30)])
            elif kind < 0.65:
                low, high = rng.choice(RANGES)
                parts.append("".join(chr(rng.randint(low, high)) for _ in range(rng.randint(1, 12))))
            elif kind < 0.8:
                parts.append(rng.choice(SPACES) * rng.randint(1, 4))
            elif kind < 0.88:
                parts.append(str(rng.randrange(10 ** rng.randint(1, 12))))
            elif kind < 0.95 and specials:
                parts.append(rng.choice(specials))
            else:
                low, high = rng.choice(RANGES)
                parts.append(chr(rng.randint(low, high)) * rng.randint(1, 70))
        out.append("".join(parts))
    return out


def write_golden(tokenizer, path, count, seed):
    specials = [t.content for t in tokenizer.get_added_tokens_decoder().values()][:24]
    with open(path, "w", encoding="utf-8") as out:
        for text in texts(random.Random(seed), count, specials):
            ids = tokenizer.encode(text, add_special_tokens=True).ids
            row = {"t": text, "i": ids}
            decoded = tokenizer.decode(ids, skip_special_tokens=True)
            if decoded != text:
                row["d"] = decoded
            out.write(json.dumps(row, ensure_ascii=True, separators=(",", ":")) + "\n")


def corpus():
    rng = random.Random(7)
    return SENTENCES * 30 + texts(rng, 400, [])


def byte_level(normalizer, pre, specials, ignore_merges=False):
    tokenizer = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    if normalizer:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(corpus(), trainers.BpeTrainer(
        vocab_size=1400, show_progress=False, special_tokens=[AddedToken(s, normalized=False) for s in specials],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    return tokenizer


def split_then_bytes(pattern):
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"),
                                    pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def sentencepiece(metaspace):
    """Trained on words with marks, as SentencePiece does; bytes added in front."""
    trained = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    trained.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=True)
    head = ["<unk>", "<s>", "</s>"]
    trained.train_from_iterator(corpus(), trainers.BpeTrainer(
        vocab_size=1300, show_progress=False, limit_alphabet=300,
        special_tokens=head + ["<0x%02X>" % b for b in range(256)]))
    data = json.loads(trained.to_str())
    data["added_tokens"] = [t for t in data["added_tokens"] if t["content"] in head]
    tokenizer = Tokenizer.from_str(json.dumps(data))
    if metaspace:  # Mistral's newer files
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
        tokenizer.add_special_tokens([AddedToken("[INST]", normalized=False), AddedToken("[/INST]", normalized=False)])
        tokenizer.add_tokens([AddedToken("word", single_word=True), AddedToken("<l>", lstrip=True, normalized=False),
                              AddedToken("<r>", rstrip=True, normalized=False)])
    else:
        tokenizer.pre_tokenizer = None
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    tokenizer.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(),
                                           decoders.Strip(" ", 1, 0)])
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A", "<s> $A <s> $B", [("<s>", 1)])
    return tokenizer


def families():
    digits = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True),
                                      pre_tokenizers.ByteLevel(add_prefix_space=False)])
    chat = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    llama3 = byte_level(None, split_then_bytes(CL100K % "{1,3}"), ["<|begin_of_text|>", "<|eot_id|>"], True)
    llama3.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), processors.TemplateProcessing(
        "<|begin_of_text|> $A", "<|begin_of_text|> $A $B", [("<|begin_of_text|>", 0)])])
    return {
        "gpt2": byte_level(None, pre_tokenizers.ByteLevel(add_prefix_space=False), ["<|endoftext|>"]),
        "smollm": byte_level(None, digits, chat + ["<repo_name>"]),
        "llama3": llama3,
        "qwen2": byte_level(normalizers.NFC(), split_then_bytes(CL100K % ""), chat),
        "regex": byte_level(normalizers.NFKC(), split_then_bytes(O200K_LIKE), ["[INST]"]),
        "llama2": sentencepiece(False),
        "mistral": sentencepiece(True),
    }


def from_gguf(path):
    import gguf
    fields = gguf.GGUFReader(path).fields
    get = lambda key: fields["tokenizer.ggml." + key].contents()
    tokens, types, pre = get("tokens"), get("token_type"), get("pre")
    tokenizer = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(tokens) if types[i] in (1, 3, 4)},
                                     merges=[tuple(m.split(" ")) for m in get("merges")]))
    data = json.loads(tokenizer.to_str())
    data["added_tokens"] = [dict(id=i, content=t, special=types[i] == 3, normalized=False, lstrip=False, rstrip=False,
                                 single_word=False) for i, t in enumerate(tokens) if types[i] in (3, 4)]
    tokenizer = Tokenizer.from_str(json.dumps(data))
    if pre == "qwen2":
        tokenizer.normalizer = normalizers.NFC()
        tokenizer.pre_tokenizer = split_then_bytes(CL100K % "")
    elif pre == "smollm":
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True),
                                                           pre_tokenizers.ByteLevel(add_prefix_space=False)])
    else:
        sys.exit("unknown tokenizer.ggml.pre: " + pre)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def main():
    out = sys.argv[1]
    os.makedirs(out, exist_ok=True)
    if len(sys.argv) > 2:
        name = os.path.splitext(os.path.basename(sys.argv[2]))[0]
        made, count = {name: from_gguf(sys.argv[2])}, 20000
    else:
        made, count = families(), NUM_TEXTS
    for seed, (name, tokenizer) in enumerate(made.items()):
        with open(os.path.join(out, name + ".json"), "w", encoding="utf-8") as file:
            file.write(json.dumps(json.loads(tokenizer.to_str()), separators=(",", ":")) + "\n")
        write_golden(tokenizer, os.path.join(out, name + ".golden.jsonl"), count, seed)


main()
