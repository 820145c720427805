"""N-grams beside tokens: which rows of the table are read, and from where."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model.config import ModelConfig
from model.ngrams import NOTHING, ngram_vectors, tokens_before, tokens_before_in_cache
from model.transformer import Decoder

CONFIG = ModelConfig(vocab_size=31, context_length=16, num_layers=1, embed_dim=8, num_heads=2, positions="rotary", ngrams=4, ngram_rows=19)
RNG = np.random.default_rng(0)
LENGTHS = (5, 1, 7)
TOKENS = RNG.integers(0, 31, (2, sum(LENGTHS)))
POSITIONS = np.tile(np.concatenate([np.arange(length) for length in LENGTHS]), (2, 1))
BITS = 2**32


class LookUp(nn.Module):
    config: ModelConfig

    @nn.compact
    def __call__(self, tokens_BT, before_BTN):
        return ngram_vectors(self.config, tokens_BT, before_BTN)


def row_of(ids):
    """The row of an n-gram, its last token first, in Python's integers; None stands before a document."""
    value = ids[0] + 1
    for token in ids[1:]:
        value = (value * 0x9E3779B1 + (0 if token is None else token + 1)) % BITS
    value = (value ^ value >> 16) * 0x85EBCA6B % BITS
    value = (value ^ value >> 13) * 0xC2B2AE35 % BITS
    return (value ^ value >> 16) % 19


def before_by_hand(tokens, positions, count):
    return [[tokens[t - back] if back <= positions[t] else None for back in range(1, count + 1)] for t in range(len(tokens))]


def test_vectors_are_those_of_the_definition():
    """Three documents in a row: each n-gram ends at its token, and holds nothing of the document before."""
    table = RNG.normal(size=(19, 8))
    before = tokens_before(jnp.asarray(TOKENS), jnp.asarray(POSITIONS), 3)

    found = LookUp(CONFIG).apply({"params": {"ngrams": {"table": jnp.asarray(table, jnp.float32)}}}, jnp.asarray(TOKENS), before)
    for row in range(2):
        reached = before_by_hand(TOKENS[row].tolist(), POSITIONS[row].tolist(), 3)
        for t, behind in enumerate(reached):
            expected = sum(table[row_of([int(TOKENS[row, t]), *behind[:n]])] for n in (1, 2, 3))
            np.testing.assert_allclose(found[row, t], expected, rtol=1e-4, atol=1e-5)


def test_rows_are_used_evenly():
    """A hash that favours rows would let frequent n-grams share more than they must: chi-squared of all bigrams of a vocabulary."""
    tokens = np.stack(np.meshgrid(np.arange(200), np.arange(200)), -1).reshape(-1)[None]
    rows = 64
    config = dataclasses.replace(CONFIG, vocab_size=200, ngrams=2, ngram_rows=rows, embed_dim=rows)

    before = tokens_before(jnp.asarray(tokens), jnp.arange(tokens.shape[1])[None] % 2, 1)
    seen = LookUp(config).apply({"params": {"ngrams": {"table": jnp.eye(rows)}}}, jnp.asarray(tokens), before)[0, 1::2].sum(0)
    expected = seen.sum() / rows
    assert ((seen - expected) ** 2 / expected).sum() < rows + 6 * (2 * rows) ** 0.5


def test_places_without_a_token_are_passed_over():
    """Right-aligned prompts, and a gap in a row's middle, as between turns: what stands before is that of the row without them."""
    valid = np.array([[0, 0, 1, 1, 0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 1, 0, 0, 1, 1, 1], [0, 1, 0, 1, 0, 1, 0, 1, 0, 1]])
    tokens = RNG.integers(0, 31, valid.shape)
    positions = np.maximum(np.cumsum(valid, 1) - 1, 0)
    for first, length in ((0, 10), (6, 4), (9, 1)):
        part = slice(first, first + length)
        call = jax.jit(tokens_before_in_cache, static_argnums=4)
        found = np.asarray(call(jnp.asarray(tokens), jnp.asarray(valid), first, jnp.asarray(positions[:, part]), 3))
        for row in range(3):
            held = np.flatnonzero(valid[row])
            text = tokens[row, held].tolist()
            expected = before_by_hand(text, range(len(text)), 3)
            for number, place in enumerate(held):
                if place in range(first, first + length):
                    assert found[row, place - first].tolist() == [NOTHING if one is None else one for one in expected[number]]


def test_no_ngram_reaches_forward_or_into_another_document():
    """By gradient: the rows that a state depends on are those of n-grams that end at it or before it, in its document."""
    config = dataclasses.replace(CONFIG, ngram_rows=4096)
    model = Decoder(config)
    params = jax.tree.map(lambda leaf: getattr(leaf, "value", leaf), model.start(jax.random.key(0)), is_leaf=lambda x: hasattr(x, "value"))
    tokens, positions = TOKENS[:1], POSITIONS[:1]
    segments = np.repeat(np.arange(1, 4), LENGTHS)[None]

    def summed(table, tokens, place):
        output = model.apply({"params": params | {"ngrams": {"table": table}}}, tokens, segments_BT=segments, positions_BT=positions)
        return (output.hidden_BTD[0, place] * jnp.arange(1.0, 9.0)).sum()

    gradient = jax.jit(jax.grad(summed))
    place, begin = 9, 6  # in the third document
    reached = np.flatnonzero(np.abs(gradient(params["ngrams"]["table"], tokens, place)).sum(-1))
    changed = tokens.copy()
    changed[0, :begin] = (changed[0, :begin] + 1) % 31
    changed[0, place + 1 :] = (changed[0, place + 1 :] + 1) % 31
    assert len(reached) >= 10 and (place - begin + 1) * 3 >= len(reached)
    np.testing.assert_array_equal(np.flatnonzero(np.abs(gradient(params["ngrams"]["table"], changed, place)).sum(-1)), reached)


@pytest.mark.parametrize("positions", [None, [0, 1, 2, 0, 1, 2, 3, 4, 3, 4, 5, 6]], ids=["of the row", "that go on"])
def test_no_ngram_reaches_another_segment_wherever_positions_count_from(positions):
    """Segments that alternate, as where a corruption and its original are one text: n-grams stay in the pieces of their own."""
    segments = np.array([[1, 1, 1, 2, 2, 2, 1, 1, 2, 2, 3, 3]])
    tokens = TOKENS[:1, :12]
    places = jnp.broadcast_to(jnp.arange(12), (1, 12)) if positions is None else jnp.array([positions])
    found = np.asarray(tokens_before(jnp.asarray(tokens), places, 3, jnp.asarray(segments)))[0]
    for place, row in enumerate(found):
        for back, token in enumerate(row, 1):
            same = place >= back and segments[0, place - back] == segments[0, place] and places[0, place] >= back
            assert token == (tokens[0, place - back] if same else NOTHING)


@pytest.mark.parametrize("changes", [{"ngram_rows": 0}, {"ngrams": -1}])
def test_senseless_tables_are_refused(changes):
    with pytest.raises(ValueError, match="model.ngram"):
        dataclasses.replace(CONFIG, **changes)
