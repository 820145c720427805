"""GPT-2 as Hugging Face stores it (Radford et al. 2019)."""

from collections.abc import Mapping

import numpy as np

from model.config import ModelConfig


def parameters(config: ModelConfig, weights: Mapping[str, np.ndarray]) -> dict:
    """Our parameters from their weights, by name, with or without the prefix `transformer.`.

    Their kernels are [in, out], those of query, key and value side by side in one. KeyError names a weight that is missing.
    """
    prefix = "transformer." if "transformer.wte.weight" in weights else ""
    heads = (config.num_heads, config.head_width)

    def stack(name):
        return np.stack([weights[f"{prefix}h.{layer}.{name}"] for layer in range(config.num_layers)])

    def norm(name):
        return {"scale": stack(f"{name}.weight"), "bias": stack(f"{name}.bias")}

    def dense(name):
        return {"kernel": stack(f"{name}.weight"), "bias": stack(f"{name}.bias")}

    joint = {name: np.split(value, 3, axis=-1) for name, value in dense("attn.c_attn").items()}
    attention = {
        part: {name: pieces[i].reshape(*pieces[i].shape[:-1], *heads) for name, pieces in joint.items()}
        for i, part in enumerate(("query", "key", "value"))
    }
    out = dense("attn.c_proj")
    attention["out"] = out | {"kernel": out["kernel"].reshape(config.num_layers, *heads, config.embed_dim)}
    return {
        "embedding": {"table": weights[f"{prefix}wte.weight"]},
        "positions": {"table": weights[f"{prefix}wpe.weight"]},
        "layers": {
            "attention_norm": norm("ln_1"),
            "attention": attention,
            "feed_forward_norm": norm("ln_2"),
            "feed_forward": {"up": dense("mlp.c_fc"), "down": dense("mlp.c_proj")},
        },
        "final_norm": {"scale": weights[f"{prefix}ln_f.weight"], "bias": weights[f"{prefix}ln_f.bias"]},
    }
