"""Tiny models as others publish them, with random weights."""

import json
from pathlib import Path

import ml_dtypes
import numpy as np
import tokenizers
from safetensors.numpy import save_file

from model.convert.families import MODEL_TYPES

TEXTS = (
    "Hello world, it's 12345 o'clock! We'll see  two  spaces.\n\n\tTabs",
    "def f(x):\n    return x**2 + 0x1F  # ok\n",
    "Emoji 😀👩‍👩‍👧 🇩🇪 done",
    "Straße und Übermut, daß",
    "Ceci n'est pas l'été, où ça",
    "日本語のテキスト、漢字とかな。",
    "Русский текст, 100%",
    "العربية نص",
    "हिन्दी पाठ",
    " leading and trailing ",
    "",
    "<s> <|im_end|> don't DON'T",
)
"""Code, emoji and six languages."""
LLAMA = {
    "model_type": "llama",
    "vocab_size": 264,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
    "bos_token_id": 0,
    "eos_token_id": 2,
}
TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] | trim + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")


def byte_level(merges=()) -> tokenizers.Tokenizer:
    """Byte-level BPE with SPECIALS in front."""
    pieces = [*SPECIALS, *sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet()), *("".join(merge) for merge in merges)]
    model = tokenizers.models.BPE({piece: i for i, piece in enumerate(pieces)}, list(merges))
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIALS))
    return tokenizer


def weights_of(settings: dict, seed: int = 0) -> dict[str, np.ndarray]:
    """Random tensors by Hugging Face's names."""
    family, rng = MODEL_TYPES[settings["model_type"]], np.random.default_rng(seed)
    config = family.config_of(settings)
    sizes = family.sizes(config)
    each = family.each(config, "hf", settings)
    return {name: rng.normal(0, 0.3, tensor.shape(sizes)).astype(np.float32) for name, tensor, _ in each}


def write_folder(folder: Path, settings: dict = LLAMA, *, weights: dict | None = None, dtype=ml_dtypes.bfloat16, shards: int = 1) -> dict:
    """A Hugging Face folder; returns its tensors, as float32."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: one.astype(dtype) for name, one in (weights_of(settings) if weights is None else weights).items()}
    (folder / "config.json").write_text(json.dumps(settings))
    byte_level().save(str(folder / "tokenizer.json"))
    tokens = {"bos_token": "<|endoftext|>", "eos_token": {"content": "<|im_end|>"}}
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": TEMPLATE, **tokens}))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, 0], "temperature": 0.6, "top_k": 5}))
    if shards == 1:
        save_file(weights, folder / "model.safetensors")
    else:
        names = {name: f"model-{i % shards + 1:05}-of-{shards:05}.safetensors" for i, name in enumerate(weights)}
        for file in set(names.values()):
            save_file({name: weights[name] for name in weights if names[name] == file}, folder / file)
        (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": names}))
    return {name: one.astype(np.float32) for name, one in weights.items()}
