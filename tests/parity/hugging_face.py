"""Tiny models of Hugging Face's library, and the predictions of both sides."""

import jax
import jax.numpy as jnp
import numpy as np
import tokenizers

from model.heads import Head, logits, vocabulary_table
from train.checkpoints.checkpointer import load_parameters
from train.devices.mesh import inference_mesh
from train.kinds import realise

VOCABULARY = 300
SHAPE = {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48}
SHAPE |= {"max_position_embeddings": 64, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": None}
GROUPED = SHAPE | {"num_key_value_heads": 2, "rms_norm_eps": 1e-5}
SCALED = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 16}
GEMMA = GROUPED | {"head_dim": 16, "query_pre_attn_scalar": 24, "sliding_window": 7}
TEMPLATE = """{%- if messages[0]['role'] != 'system' %}
    {{- '<|im_start|>system\\nBe brief.<|im_end|>\\n' }}
{%- endif %}
{% for message in messages %}
{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] | trim + '<|im_end|>' }}
{% endfor %}
{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""
FAMILIES = {
    "gpt2": ("GPT2", {"vocab_size": VOCABULARY, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 64, "eos_token_id": 0}),
    "llama": ("Llama", GROUPED),
    "llama 3": ("Llama", GROUPED | {"tie_word_embeddings": True, "rope_scaling": SCALED, "rope_theta": 5000.0}),
    "mistral": ("Mistral", GROUPED | {"sliding_window": 9, "head_dim": 16}),
    "qwen 2": ("Qwen2", GROUPED),
    "qwen 3": ("Qwen3", GROUPED | {"head_dim": 16, "tie_word_embeddings": True}),
    "gemma 2": ("Gemma2", GEMMA | {"num_hidden_layers": 4}),
    "gemma 3": ("Gemma3", GEMMA | {"num_hidden_layers": 7}),
    "pythia": ("GPTNeoX", SHAPE | {"rotary_pct": 0.5}),
    "neox, one after the other": ("GPTNeoX", SHAPE | {"use_parallel_residual": False}),
}
ENCODER = SHAPE | {"pad_token_id": 1, "type_vocab_size": 2}
OTHERS = {
    "bert": ("Bert", ENCODER),
    "roberta": ("Roberta", ENCODER | {"type_vocab_size": 1, "max_position_embeddings": 66}),
    "distilbert": (
        "DistilBert",
        {"vocab_size": VOCABULARY, "dim": 32, "n_layers": 3, "n_heads": 4, "hidden_dim": 48, "max_position_embeddings": 64},
    ),
    "albert": ("Albert", ENCODER | {"embedding_size": 16, "num_hidden_layers": 4, "num_hidden_groups": 2, "pad_token_id": 0}),
    "t5": (
        "T5",
        {"vocab_size": VOCABULARY, "d_model": 32, "d_kv": 6, "d_ff": 48, "num_layers": 3, "num_decoder_layers": 2, "num_heads": 4},
    ),
}
OTHERS["t5 1.1"] = "T5", OTHERS["t5"][1] | {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
READ_BY_THEIRS = ("LlamaForCausalLM", "Qwen2ForCausalLM")
"""From GGUF files. Of others it takes the usual width of heads, scale of scores or context, whatever the file says."""
TOKENS_BT = np.random.default_rng(1).integers(2, VOCABULARY, (2, 40))


def their_config(kind: str, settings: dict):
    import transformers

    name = "Gemma3TextConfig" if kind == "Gemma3" else f"{kind}Config"
    return getattr(transformers, name)(**settings)


def their_logits(model) -> np.ndarray:
    import torch

    with torch.no_grad():
        return model(torch.from_numpy(TOKENS_BT)).logits.numpy()


def our_logits(run) -> np.ndarray:
    model = realise(run.experiment.model)
    params, _ = load_parameters(run, inference_mesh(run.experiment.mesh))
    hidden_BTD = jax.jit(model.apply)({"params": params}, jnp.asarray(TOKENS_BT, jnp.int32)).hidden_BTD
    return np.asarray(logits(Head(hidden_BTD, vocabulary_table(params)), softcap=run.experiment.model.logit_softcap))


def assert_same_logits(found: np.ndarray, expected: np.ndarray) -> None:
    """Up to rounding, which grows with the largest of them: a sum in another order changes small ones as much as large ones."""
    scale = np.abs(expected).max()
    np.testing.assert_allclose(found, expected, rtol=0, atol=5e-4 * scale)


def byte_level() -> tokenizers.Tokenizer:
    """Of bytes, with as many ids as the models."""
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i + 1 for i, token in enumerate(alphabet)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary | {"<|endoftext|>": 0}, []))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|endoftext|>"])
    return tokenizer


def make_random(model, *, one: bool) -> None:
    """one: norms multiply by their weight, and not by 1 more."""
    import torch

    rng = np.random.default_rng(0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            mean = float(one and weight.ndim == 1 and name.endswith("weight"))
            weight.copy_(torch.from_numpy(rng.normal(mean, 0.1 if weight.ndim == 1 else 0.3, tuple(weight.shape))))
