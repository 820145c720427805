"""Vectors of texts: packed into rows, and the same as of each text by itself."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data.errors import UserError
from data.tokenizer import byte_tokenizer
from model.config import ModelConfig
from model.text_encoder import TextEncoder
from model.text_encoder_config import TextEncoderConfig
from model.transformer import Decoder
from train.generation.embeddings import TEXTS_A_ROW, TextEmbedder

TOKENIZER = byte_tokenizer()
SHAPE = {"vocab_size": 384, "context_length": 96, "num_layers": 1, "embed_dim": 16, "num_heads": 2, "init_std": 0.3}
TEXTS = ["a", "some words", "", *(f"{number} times {'x' * number}" for number in (3, 60, 9, 33, 200)), *"abcdefghijklmnopqrstuvwxyz"]


def model_of(config):
    model = {ModelConfig: Decoder, TextEncoderConfig: TextEncoder}[type(config)](config)
    return model, nn.unbox(jax.jit(model.start)(jax.random.key(0)))


@pytest.mark.parametrize(
    "pool, config", [("mean", TextEncoderConfig(**SHAPE)), ("pooler", TextEncoderConfig(**SHAPE)), ("last", ModelConfig(**SHAPE))]
)
def test_packed_texts_have_the_vectors_of_single_ones(pool, config):
    """More short texts than a row takes, one longer than the context, an empty one; each in its place."""
    assert len(TEXTS) > TEXTS_A_ROW
    model, params = model_of(config)
    found = TextEmbedder(model, params, TOKENIZER, pool=pool)(TEXTS)
    hidden_of = jax.jit(lambda tokens: model.apply({"params": params}, tokens).hidden_BTD)
    for text, vector in zip(TEXTS, found, strict=True):
        end = TOKENIZER.specials["document_end"]
        ids = [TOKENIZER.document_start, *TOKENIZER.encode(text)[: config.context_length - 2].tolist(), end]
        hidden = hidden_of(jnp.asarray([ids]))
        if pool == "pooler":
            expected = np.tanh(hidden[0, 0] @ params["pooler"]["dense"]["kernel"] + params["pooler"]["dense"]["bias"])
        else:
            expected = hidden[0].mean(0) if pool == "mean" else hidden[0, -1]
        np.testing.assert_allclose(vector, expected / np.linalg.norm(expected), rtol=1e-3, atol=1e-5)


def test_a_pool_that_the_model_has_not_is_refused():
    with pytest.raises(UserError, match="no pooler"):
        TextEmbedder(*model_of(ModelConfig(**SHAPE)), TOKENIZER, pool="pooler")


def test_nothing_is_compiled_behind_what_was_compiled_before():
    """Whatever the texts, alone and many, short and as long as the model reads."""
    config = TextEncoderConfig(vocab_size=320, context_length=200, num_layers=1, embed_dim=16, num_heads=2)
    embedder = TextEmbedder(TextEncoder(config), nn.unbox(TextEncoder(config).start(jax.random.key(0))), byte_tokenizer())
    embedder.compile()
    before, rng = embedder._embed._cache_size(), np.random.default_rng(0)
    for count in (1, 2, 3, 7, 40, 90):
        embedder(["a" * int(length) for length in rng.integers(1, 300, count)])
    assert embedder._embed._cache_size() == before
