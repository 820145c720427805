"""Weights that others have published, from a folder as Hugging Face lays it out. Only GPT-2 so far."""

import json
from pathlib import Path
from typing import Literal

import numpy as np

from data.errors import UserError
from model.config import ModelConfig
from model.convert import gpt2


def load_pretrained(folder: str | Path) -> tuple[ModelConfig, dict]:
    """(config, parameters) of a folder with config.json and model.safetensors; the parameters are NumPy arrays, float32.

    Needs the extra `hf`. UserError for another family, a missing file, weights that do not fit their config.
    """
    try:
        from safetensors.numpy import load_file
    except ImportError:
        raise UserError("reading published weights needs safetensors", "pip install -e '.[hf]'") from None
    folder = Path(folder)
    try:
        found = json.loads((folder / "config.json").read_text())
        weights = load_file(folder / "model.safetensors")
    except (OSError, ValueError) as error:
        raise UserError(f"{folder}: {error}", "Give a folder with config.json and model.safetensors.") from None
    except Exception as error:  # SafetensorError, which is no ValueError
        raise UserError(f"{folder}/model.safetensors: {error}", "Fetch the file again.") from None
    if not isinstance(found, dict) or found.get("model_type") != "gpt2":
        raise UserError(f"{folder}: another model type than gpt2", "Only gpt2 can be read so far.")
    activations: dict[str, Literal["gelu", "gelu_tanh"]] = {"gelu_new": "gelu_tanh", "gelu": "gelu"}
    if found.get("activation_function", "gelu_new") not in activations:
        raise UserError(f"{folder}: activation {found['activation_function']!r}", f"Known: {', '.join(activations)}.")
    unread = {"scale_attn_weights": True, "scale_attn_by_inverse_layer_idx": False, "tie_word_embeddings": True}
    for name, usual in unread.items():
        if found.get(name, usual) != usual:
            raise UserError(f"{folder}: {name} is {found[name]}", f"Only models where it is {usual} can be read.")
    try:
        config = ModelConfig(
            vocab_size=found["vocab_size"],
            context_length=found["n_positions"],
            num_layers=found["n_layer"],
            embed_dim=found["n_embd"],
            num_heads=found["n_head"],
            mlp_dim=found.get("n_inner") or 0,
            norm_epsilon=found.get("layer_norm_epsilon", 1e-5),
            activation=activations[found.get("activation_function", "gelu_new")],
        )
        params = gpt2.parameters(config, {name: weight.astype(np.float32) for name, weight in weights.items()})
    except (KeyError, ValueError) as error:
        raise UserError(f"{folder}: config.json and model.safetensors do not fit: {error}", "Fetch both again.") from None
    return config, params
