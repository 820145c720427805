"""The tables of published families: every parameter has its place, in both directions, and what cannot be honoured is refused."""

import dataclasses
import importlib

import flax.linen as nn
import jax
import numpy as np
import pytest

from model.config import ModelConfig
from model.convert.families import MODEL_TYPES, family_of
from model.convert.family import attempted

SHAPE = {"vocab_size": 11, "hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 10}
GROUPED = SHAPE | {"num_key_value_heads": 2, "max_position_embeddings": 8, "rms_norm_eps": 1e-5, "head_dim": 6}
GEMMA = GROUPED | {"query_pre_attn_scalar": 5, "sliding_window": 3}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 4}
YARN = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 4}
ENCODER = SHAPE | {"max_position_embeddings": 8, "pad_token_id": 1}
T5 = {"model_type": "t5", "vocab_size": 11, "d_model": 12, "d_kv": 5, "d_ff": 10, "num_layers": 3, "num_decoder_layers": 2, "num_heads": 4}
MODELS = {
    "gpt2": {"model_type": "gpt2", "vocab_size": 11, "n_positions": 8, "n_layer": 2, "n_embd": 12, "n_head": 4},
    "llama": {"model_type": "llama", "rope_scaling": LLAMA3, **GROUPED},
    "mistral": {"model_type": "mistral", "sliding_window": 5, "tie_word_embeddings": True, **GROUPED},
    "qwen2": {"model_type": "qwen2", "sliding_window": 9, "use_sliding_window": False, "rope_scaling": YARN, **GROUPED},
    "qwen3": {"model_type": "qwen3", **GROUPED},
    "gemma2": {"model_type": "gemma2", "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0, **GEMMA},
    "gemma3": {"model_type": "gemma3_text", "rope_theta": 1e6, **GEMMA},
    "pythia": {"model_type": "gpt_neox", "max_position_embeddings": 8, "rotary_pct": 0.67, **SHAPE},
    "bert": {"model_type": "bert", **ENCODER},
    "roberta": {"model_type": "roberta", **ENCODER, "type_vocab_size": 1},
    "albert": {"model_type": "albert", **ENCODER, "embedding_size": 6, "num_hidden_layers": 4, "num_hidden_groups": 2},
    "t5": T5,
    "t5 1.1": T5 | {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
}
MODELS["distilbert"] = {"model_type": "distilbert", "vocab_size": 11, "max_position_embeddings": 8, "dim": 12, "n_layers": 2}
MODELS["distilbert"] |= {"n_heads": 4, "hidden_dim": 10}


@pytest.fixture(params=MODELS)
def model(request):
    """(family, settings, our config, a random tensor for each name)."""
    settings = MODELS[request.param]
    family, rng = MODEL_TYPES[settings["model_type"]], np.random.default_rng(0)
    config = family.config_of(settings)
    sizes = family.sizes(config)
    each = family.each(config, "hf", settings)
    return family, settings, config, {name: rng.normal(size=one.shape(sizes)).astype(np.float32) for name, one, _ in each}


def ours(config) -> dict[str, np.ndarray]:
    module, _, name = config.home.partition(":")
    start = getattr(importlib.import_module(module), name)(config).start
    leaves = jax.tree_util.tree_leaves_with_path(nn.unbox(jax.eval_shape(start, jax.random.key(0))))
    return {jax.tree_util.keystr(path, simple=True, separator="/"): np.full(leaf.shape, np.nan, np.float32) for path, leaf in leaves}


@pytest.mark.parametrize("layout", ["hf", "gguf"])
def test_every_parameter_is_filled_and_comes_back(model, layout):
    family, settings, config, tensors = model
    if family.gguf == "bert" and layout == "gguf":  # which has no place for them
        config = dataclasses.replace(config, pooler=False, prediction_head=False)
        tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith(("cls.", "bert.pooler"))}
    params, sizes = ours(config), family.sizes(config)
    shapes = {name: one.shape(sizes) for name, one, _ in family.each(config, layout, settings)}
    tensors = {name: tensor.reshape(shapes[name]) for name, tensor in tensors.items()}
    family.fill(params, config, layout, settings, tensors.__getitem__)
    assert not any(np.isnan(array).any() for array in params.values())
    unused = {name: one.skip for name, one, _ in family.each(config, layout, settings)}
    assert sum(array.size for array in params.values()) == sum(one[unused[name] :].size for name, one in tensors.items())
    back = dict(family.unfilled(params, config, layout, settings))
    assert back.keys() == tensors.keys()
    for name, tensor in tensors.items():
        tensor[: unused[name]] = 0.0
        np.testing.assert_allclose(back[name], tensor, rtol=1e-6, atol=1e-6, err_msg=name)


def test_settings_come_back(model):
    family, _, config, _ = model
    found, theirs = family_of(config)
    assert found is family
    assert attempted(family, dataclasses.replace(family.config_of(theirs), **_of_the_file(config))) == (theirs, [])


def _of_the_file(config) -> dict:
    """What no setting says."""
    return {name: getattr(config, name) for name in ("pooler", "prediction_head") if hasattr(config, name)}


def test_layouts_of_gguf_are_those_of_its_converter():
    """What convert_hf_to_gguf.py does to a tensor, written out: `permute` of Llama's queries, GPT-NeoX's joint projection."""
    rng = np.random.default_rng(0)
    for kind, name, convert in (
        ("llama", "model.layers.{layer}.self_attn.q_proj.weight", lambda w: w.reshape(4, 2, 3, 12).swapaxes(1, 2).reshape(24, 12)),
        ("llama", "model.layers.{layer}.self_attn.k_proj.weight", lambda w: w.reshape(2, 2, 3, 12).swapaxes(1, 2).reshape(12, 12)),
        (
            "pythia",
            "gpt_neox.layers.{layer}.attention.query_key_value.weight",
            lambda w: np.concatenate([w.reshape(4, 3, 3, 12)[:, part].reshape(12, 12) for part in range(3)]),
        ),
        ("gpt2", "transformer.h.{layer}.mlp.c_fc.weight", np.transpose),
        ("gemma2", "model.norm.weight", lambda w: w + 1),
    ):
        settings = MODELS[kind]
        family = MODEL_TYPES[settings["model_type"]]
        config = family.config_of(settings)
        one, other = ({t.name: t for t in family.tensors(config, layout, settings)}[name] for layout in ("hf", "gguf"))
        sizes = family.sizes(config)
        theirs = rng.normal(size=one.shape(sizes)).astype(np.float32)
        for a, b in zip(one.to_ours(theirs, sizes), other.to_ours(convert(theirs), sizes), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6)


def test_a_scale_of_scores_goes_into_the_queries():
    """Gemma divides scores by the root of query_pre_attn_scalar: queries here are larger by what our division takes too much."""
    settings = MODELS["gemma2"]
    family = MODEL_TYPES["gemma2"]
    config = family.config_of(settings)
    query = next(t for t in family.tensors(config, "hf", settings) if "q_proj" in t.name)
    theirs = np.ones((24, 12), np.float32)
    np.testing.assert_allclose(query.to_ours(theirs, family.sizes(config))[0] / np.sqrt(6), 1 / np.sqrt(5), rtol=1e-6)


@pytest.mark.parametrize(
    "kind, change, words",
    [
        ("llama", {"attention_bias": True}, "attention_bias"),
        ("llama", {"hidden_act": "mish"}, "mish"),
        ("llama", {"rope_scaling": {"rope_type": "longrope", "factor": 2.0}}, "longrope"),
        ("llama", {"rope_scaling": YARN | {"mscale": 1.0}}, "mscale"),
        ("qwen2", {"use_sliding_window": True}, "use_sliding_window"),
        ("qwen3", {"layer_types": ["full_attention", "sliding_attention"]}, "layer_types"),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx"),
        ("bert", {"tie_word_embeddings": False}, "tie_word_embeddings"),
        ("distilbert", {"tie_word_embeddings": False}, "tie_word_embeddings"),
        ("gemma3", {"rope_parameters": {"sliding_attention": {"rope_type": "linear", "factor": 8.0}}}, "rope_type"),
    ],
)
def test_settings_that_cannot_be_honoured_are_refused(kind, change, words):
    settings = MODELS[kind] | change
    with pytest.raises(ValueError, match=words):
        MODEL_TYPES[settings["model_type"]].config_of(settings)


def test_bases_of_rotation_are_read_wherever_they_stand():
    """Null is what is left out."""
    scaled = {"rotary_emb_base": 500_000, "rope_scaling": {"type": "linear", "factor": 2.0}}
    assert MODEL_TYPES["gpt_neox"].config_of(MODELS["pythia"] | scaled).rotary_base == 500_000
    gemma = MODEL_TYPES["gemma3_text"].config_of(MODELS["gemma3"] | {"rope_theta": None, "rope_local_base_freq": None})
    assert (gemma.rotary_base, gemma.local_rotary_base) == (1e6, 1e4)


def test_a_distilbert_has_no_pooler():
    config = dataclasses.replace(MODEL_TYPES["distilbert"].config_of(MODELS["distilbert"]), pooler=True)
    with pytest.raises(ValueError, match="no published family"):
        family_of(config)


def test_a_model_that_nobody_publishes_has_no_family(model):
    _, _, config, _ = model
    changed = dataclasses.replace(config, experts=2)
    assert all(tried is None or tried[1] for tried in (attempted(family, changed) for family in set(MODEL_TYPES.values())))
    with pytest.raises(ValueError, match="no published family.* has no experts 2"):
        family_of(changed)
    if type(config) is ModelConfig:
        with pytest.raises(ValueError, match="no published family.* has no ngrams 3"):
            family_of(dataclasses.replace(config, ngrams=3))
