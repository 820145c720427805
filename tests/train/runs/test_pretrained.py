"""Weights that others published: the right ones are read, and what is wrong with the others is said."""

import json

import flax.linen as nn
import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from data.errors import UserError
from model.transformer import abstract_parameters
from train.runs.huggingface import load_pretrained

CONFIG = {"model_type": "gpt2", "vocab_size": 11, "n_positions": 8, "n_layer": 2, "n_embd": 6, "n_head": 2}


def write(folder, config=CONFIG, prefix="transformer.", leave_out=()):
    rng = np.random.default_rng(0)
    shapes = {"wte.weight": (11, 6), "wpe.weight": (8, 6), "ln_f.weight": (6,), "ln_f.bias": (6,)}
    for layer in range(2):
        for name, shape in {"ln_1": (6,), "ln_2": (6,)}.items():
            shapes |= {f"h.{layer}.{name}.weight": shape, f"h.{layer}.{name}.bias": shape}
        for name, shape in {"attn.c_attn": (6, 18), "attn.c_proj": (6, 6), "mlp.c_fc": (6, 24), "mlp.c_proj": (24, 6)}.items():
            shapes |= {f"h.{layer}.{name}.weight": shape, f"h.{layer}.{name}.bias": shape[1:]}
    weights = {prefix + name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items() if name not in leave_out}
    save_file(weights, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    return weights


@pytest.mark.parametrize("prefix", ["transformer.", ""])
def test_every_weight_has_its_place(tmp_path, prefix):
    weights = write(tmp_path, prefix=prefix)
    config, params = load_pretrained(tmp_path)
    expected = nn.unbox(abstract_parameters(config))
    assert jax.tree.map(np.shape, params) == jax.tree.map(np.shape, expected)
    joint = weights[f"{prefix}h.1.attn.c_attn.weight"]
    np.testing.assert_array_equal(params["layers"]["attention"]["key"]["kernel"][1].reshape(6, 6), joint[:, 6:12])
    assert sum(x.size for x in jax.tree.leaves(params)) == sum(x.size for x in weights.values())


@pytest.mark.parametrize(
    "change, words",
    [
        ({"config": CONFIG | {"model_type": "llama"}}, "Only gpt2"),
        ({"config": CONFIG | {"activation_function": "relu"}}, "activation 'relu'"),
        ({"leave_out": ("h.1.ln_2.bias",)}, "h.1.ln_2.bias"),
    ],
)
def test_what_does_not_fit_is_said(tmp_path, change, words):
    write(tmp_path, **change)
    with pytest.raises(UserError, match=words):
        load_pretrained(tmp_path)


def test_damage_and_absence_are_said(tmp_path):
    with pytest.raises(UserError, match="config.json"):
        load_pretrained(tmp_path)
    write(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"\x08")
    with pytest.raises(UserError, match="Fetch the file again"):
        load_pretrained(tmp_path)
