"""Each family is what Hugging Face transformers says it is: the same weights give the same predictions.

`make parity` runs this in an environment that has PyTorch and transformers; where they are missing it fails.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model.config import ModelConfig
from model.convert import gpt2 as gpt2_family
from model.decoding.generate import generate
from model.decoding.sampling import Sampling
from model.heads import Head, logits, vocabulary_table
from model.transformer import Decoder, abstract_parameters, count_parameters

pytestmark = pytest.mark.slow

GPT2 = ModelConfig(vocab_size=61, context_length=40, num_layers=3, embed_dim=32, num_heads=4, activation="gelu_tanh")
LLAMA = ModelConfig(
    vocab_size=61,
    context_length=40,
    num_layers=3,
    embed_dim=32,
    num_heads=4,
    num_kv_heads=2,
    mlp_dim=48,
    norm="rmsnorm",
    norm_epsilon=1e-6,
    activation="silu",
    gated=True,
    positions="rotary",
    rotary_base=5000.0,
    bias=False,
    tied_embeddings=False,
)
LLAMA_TIED = ModelConfig(**vars(LLAMA) | {"tied_embeddings": True})
LLAMA31 = ModelConfig(**vars(LLAMA) | {"rotary_scaling": "llama3", "rotary_factor": 8.0, "rotary_original_context": 16})
LLAMA_YARN = ModelConfig(**vars(LLAMA) | {"rotary_scaling": "yarn", "rotary_factor": 4.0, "rotary_original_context": 10})
GEMMA2 = ModelConfig(
    **vars(LLAMA_TIED)
    | {
        "num_layers": 4,
        "head_dim": 16,
        "activation": "gelu_tanh",
        "window": 7,
        "global_every": 2,
        "norm_position": "both",
        "embed_scale": True,
    }
    | {"attention_softcap": 5.0, "logit_softcap": 3.0}
)
MIXTRAL = ModelConfig(**vars(LLAMA) | {"experts": 4, "experts_per_token": 2})
COHERE = ModelConfig(**vars(LLAMA_TIED) | {"norm": "layernorm", "parallel": True})


def gpt2(c: ModelConfig):
    from transformers import GPT2Config, GPT2LMHeadModel

    shape = {
        "vocab_size": c.vocab_size,
        "n_positions": c.context_length,
        "n_embd": c.embed_dim,
        "n_layer": c.num_layers,
        "n_head": c.num_heads,
    }
    return GPT2LMHeadModel(GPT2Config(**shape, activation_function="gelu_new", bos_token_id=None, eos_token_id=None))


def gpt2_parameters(c: ModelConfig, weights: dict):
    params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), nn.unbox(abstract_parameters(c)))
    leaves = {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(params)}
    gpt2_family.FAMILY.fill(leaves, c, "hf", gpt2_family.theirs(c), weights.__getitem__)
    return params


def rotary_shape(c: ModelConfig) -> dict:
    """What all families with rotary positions are told in the same words."""
    rope = {"rope_type": "default", "rope_theta": c.rotary_base}
    if c.rotary_scaling != "none":
        rope |= {"rope_type": c.rotary_scaling, "factor": c.rotary_factor}
        rope |= {"original_max_position_embeddings": c.rotary_original_context}
    if c.rotary_scaling == "llama3":
        rope |= {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
    return {
        "vocab_size": c.vocab_size,
        "max_position_embeddings": c.context_length,
        "num_hidden_layers": c.num_layers,
        "hidden_size": c.embed_dim,
        "intermediate_size": c.mlp_dim,
        "num_attention_heads": c.num_heads,
        "num_key_value_heads": c.num_kv_heads,
        "rope_parameters": rope,
        "tie_word_embeddings": c.tied_embeddings,
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": None,
    }


def llama(c: ModelConfig):
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(LlamaConfig(**rotary_shape(c), rms_norm_eps=c.norm_epsilon))


def gemma2(c: ModelConfig):
    from transformers import Gemma2Config, Gemma2ForCausalLM

    own = {
        "rms_norm_eps": c.norm_epsilon,
        "head_dim": c.head_dim,
        "query_pre_attn_scalar": c.head_dim,
        "sliding_window": c.window,
        "attn_logit_softcapping": c.attention_softcap,
        "final_logit_softcapping": c.logit_softcap,
        "attn_implementation": "eager",  # the only one of theirs that caps scores
    }
    return Gemma2ForCausalLM(Gemma2Config(**rotary_shape(c), **own))


def mixtral(c: ModelConfig):
    from transformers import MixtralConfig, MixtralForCausalLM

    own = {"num_local_experts": c.experts, "num_experts_per_tok": c.experts_per_token, "sliding_window": None}
    return MixtralForCausalLM(MixtralConfig(**rotary_shape(c), **own, rms_norm_eps=c.norm_epsilon))


def cohere(c: ModelConfig):
    from transformers import CohereConfig, CohereForCausalLM

    return CohereForCausalLM(CohereConfig(**rotary_shape(c), layer_norm_eps=c.norm_epsilon, logit_scale=1.0))


def llama_parameters(c: ModelConfig, weights: dict):
    """Theirs as ours. Their kernels are [out, in]."""

    def stack(name):
        return np.stack([weights[f"model.layers.{layer}.{name}.weight"] for layer in range(c.num_layers)])

    def dense(name, *features):
        kernel = stack(name).swapaxes(1, 2)
        return {"kernel": kernel.reshape(*kernel.shape[:2], *features) if features else kernel}

    table = {} if c.tied_embeddings else {"head": {"table": weights["lm_head.weight"]}}
    return table | {
        "embedding": {"table": weights["model.embed_tokens.weight"]},
        "layers": {
            "attention_norm": {"scale": stack("input_layernorm")},
            "attention": {
                "query": dense("self_attn.q_proj", c.num_heads, c.head_width),
                "key": dense("self_attn.k_proj", c.kv_heads, c.head_width),
                "value": dense("self_attn.v_proj", c.kv_heads, c.head_width),
                "out": {"kernel": dense("self_attn.o_proj")["kernel"].reshape(c.num_layers, c.num_heads, c.head_width, c.embed_dim)},
            },
            "feed_forward_norm": {"scale": stack("post_attention_layernorm")},
            "feed_forward": {part: dense(f"mlp.{part}_proj") for part in ("gate", "up", "down")} if not c.experts else {},
        },
        "final_norm": {"scale": weights["model.norm.weight"]},
    }


def gemma2_parameters(c: ModelConfig, weights: dict):
    """As Llama's, but each norm multiplies by 1 + weight, and their names say before and after."""
    weights = {name: weight + 1.0 if "norm" in name else weight for name, weight in weights.items()}
    params = llama_parameters(c, weights)

    def norm(name):
        return {"scale": np.stack([weights[f"model.layers.{layer}.{name}_layernorm.weight"] for layer in range(c.num_layers)])}

    params["layers"] |= {
        "attention_post_norm": norm("post_attention"),
        "feed_forward_norm": norm("pre_feedforward"),
        "feed_forward_post_norm": norm("post_feedforward"),
    }
    return params


def mixtral_parameters(c: ModelConfig, weights: dict):
    """As Llama's, with a router, and all experts' projections stacked [experts, out, in], gate and up one below the other."""
    params = llama_parameters(c, weights)

    def stack(name):
        return np.stack([weights[f"model.layers.{layer}.mlp.{name}"] for layer in range(c.num_layers)]).swapaxes(-1, -2)

    gate, up = np.split(stack("experts.gate_up_proj"), 2, axis=-1)
    experts = {"gate": {"kernel": gate}, "up": {"kernel": up}, "down": {"kernel": stack("experts.down_proj")}}
    params["layers"]["feed_forward"] = {"router": {"kernel": stack("gate.weight")}, "experts": experts}
    return params


def cohere_parameters(c: ModelConfig, weights: dict):
    """As Llama's, with one norm, and neighbours (2k, 2k + 1) of a head rotated together where we rotate (k, k + K/2)."""
    shared = {name.replace("input_layernorm", "post_attention_layernorm"): weight for name, weight in weights.items()}
    params = llama_parameters(c, shared | weights)
    del params["layers"]["feed_forward_norm"]
    for name in ("query", "key"):
        kernel = params["layers"]["attention"][name]["kernel"]
        params["layers"]["attention"][name]["kernel"] = np.concatenate([kernel[..., 0::2], kernel[..., 1::2]], axis=-1)
    return params


FAMILIES = {
    "gpt2": (GPT2, gpt2, gpt2_parameters),
    "llama": (LLAMA, llama, llama_parameters),
    "llama_tied": (LLAMA_TIED, llama, llama_parameters),
    "llama31": (LLAMA31, llama, llama_parameters),
    "llama_yarn": (LLAMA_YARN, llama, llama_parameters),
    "gemma2": (GEMMA2, gemma2, gemma2_parameters),
    "mixtral": (MIXTRAL, mixtral, mixtral_parameters),
    "cohere": (COHERE, cohere, cohere_parameters),
}


@pytest.fixture(scope="module", params=FAMILIES)
def pair(request):
    """Their model, ours and its parameters. Biases and norms are random too, so that none of them hides behind its zero or one."""
    import torch

    config, make, convert = FAMILIES[request.param]
    theirs = make(config).eval()
    rng = np.random.default_rng(0)
    with torch.no_grad():
        for name, weight in theirs.named_parameters():
            is_norm = weight.ndim == 1 and name.endswith("weight")
            weight.copy_(torch.from_numpy(rng.normal(float(is_norm), 0.1 if weight.ndim == 1 else 0.3, tuple(weight.shape))))
    weights = {name: weight.numpy() for name, weight in theirs.state_dict().items()}
    params = jax.tree.map(jnp.asarray, convert(config, weights))
    assert sum(weight.numel() for weight in theirs.parameters()) == count_parameters(config)
    return theirs, Decoder(config), params


def test_parameters_have_our_shapes(pair):
    _, model, params = pair
    expected = nn.unbox(abstract_parameters(model.config))
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, expected)


def test_log_probabilities_are_equal(pair):
    import torch

    theirs, model, params = pair
    tokens_BT = np.random.default_rng(1).integers(0, model.config.vocab_size, (4, model.config.context_length))
    with torch.no_grad():
        expected_BTV = theirs(torch.from_numpy(tokens_BT)).logits.log_softmax(-1).numpy()

    @jax.jit
    def log_probabilities(params, tokens_BT):
        hidden_BTD = model.apply({"params": params}, tokens_BT).hidden_BTD
        return jax.nn.log_softmax(logits(Head(hidden_BTD, vocabulary_table(params)), softcap=model.config.logit_softcap))

    found_BTV = np.asarray(log_probabilities(params, jnp.asarray(tokens_BT, jnp.int32)))
    assert found_BTV.std() > 0.5  # predictions that differ from token to token, so that being equal says something
    np.testing.assert_allclose(found_BTV, expected_BTV, rtol=0, atol=1e-4)


def test_greedy_continuations_are_equal(pair):
    """Ours go through one batch padded on the left, theirs each alone."""
    import torch

    theirs, model, params = pair
    rng = np.random.default_rng(2)
    prompts = [rng.integers(0, model.config.vocab_size, length) for length in (1, 5, 12, 20)]
    padded_BT = jnp.asarray([np.pad(prompt, (20 - len(prompt), 0)) for prompt in prompts], jnp.int32)
    run = jax.jit(functools.partial(generate, model, sampling=Sampling(temperature=0.0), max_new_tokens=20))
    keys_B = jax.random.split(jax.random.key(0), len(prompts))
    found = run(params, padded_BT, jnp.asarray([len(prompt) for prompt in prompts]), keys_B)
    for prompt, row in zip(prompts, np.asarray(found.tokens_BS), strict=True):
        prompt_1T = torch.from_numpy(prompt)[None]
        expected = theirs.generate(prompt_1T, attention_mask=torch.ones_like(prompt_1T), max_new_tokens=20, do_sample=False, pad_token_id=0)
        np.testing.assert_array_equal(row[20:], expected[0, len(prompt) :].numpy())
