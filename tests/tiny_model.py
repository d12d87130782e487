"""A random Llama as a Hugging Face folder, small enough to load in milliseconds, with a real byte-level
BPE tokenizer and a ChatML template: what tests of whole programs run on. Standard library only.

With one layer a row's K and V depend on its own token alone, so rows of a document computed apart are
those of the whole prompt, and every mode must answer what dense answers.
"""
import array
import json
import pathlib
import random
import shutil
import struct

HIDDEN, HEADS, KV_HEADS, HEAD_DIM, FFN, CONTEXT = 64, 4, 2, 16, 96, 16384
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + "
    "'<|im_end|>' + '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{% endif %}"
)


def write(folder, layers=2, seed=1):
    """Writes the model into `folder`, which is made, and answers its path."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True)
    golden = pathlib.Path(__file__).parent / "golden/tokenizer/smollm.json"
    shutil.copy(golden, folder / "tokenizer.json")
    vocab = len(json.loads(golden.read_text(encoding="utf-8"))["model"]["vocab"])
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"chat_template": CHAT_TEMPLATE, "eos_token": "<|im_end|>", "bos_token": "<|im_start|>"})
    )
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
        "vocab_size": vocab, "hidden_size": HIDDEN, "intermediate_size": FFN, "num_hidden_layers": layers,
        "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS, "head_dim": HEAD_DIM,
        "max_position_embeddings": CONTEXT, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
        "tie_word_embeddings": False, "torch_dtype": "float32", "bos_token_id": 1, "eos_token_id": 2,
    }
    (folder / "config.json").write_text(json.dumps(config))

    noise = random.Random(seed)
    tensors = {}

    def matrix(name, rows, columns, gain):
        scale = gain / columns**0.5
        values = array.array("f", (noise.gauss(0, scale) for _ in range(rows * columns)))
        tensors[name + ".weight"] = ([rows, columns], values)

    def norm(name):
        tensors[name + ".weight"] = ([HIDDEN], array.array("f", (noise.gauss(1, 0.1) for _ in range(HIDDEN))))

    matrix("model.embed_tokens", vocab, HIDDEN, 8)
    matrix("lm_head", vocab, HIDDEN, 2)
    norm("model.norm")
    for layer in range(layers):
        at = f"model.layers.{layer}."
        norm(at + "input_layernorm")
        norm(at + "post_attention_layernorm")
        matrix(at + "self_attn.q_proj", HEADS * HEAD_DIM, HIDDEN, 1.5)
        matrix(at + "self_attn.k_proj", KV_HEADS * HEAD_DIM, HIDDEN, 1.5)
        matrix(at + "self_attn.v_proj", KV_HEADS * HEAD_DIM, HIDDEN, 3)
        matrix(at + "self_attn.o_proj", HIDDEN, HEADS * HEAD_DIM, 3)
        matrix(at + "mlp.gate_proj", FFN, HIDDEN, 1)
        matrix(at + "mlp.up_proj", FFN, HIDDEN, 1)
        matrix(at + "mlp.down_proj", HIDDEN, FFN, 1)

    header, blob = {}, b""
    for name, (shape, values) in tensors.items():
        data = values.tobytes()
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [len(blob), len(blob) + len(data)]}
        blob += data
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + blob)
    return folder
