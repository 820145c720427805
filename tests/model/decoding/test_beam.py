"""Beam search against trying everything."""

import dataclasses
import functools
import itertools

import jax
import numpy as np
import pytest

from model.decoding.beam import beam_search
from model.decoding.generate import generate
from model.decoding.sampling import Sampling
from model.heads import Head, score_tokens, vocabulary_table
from tests.model.conftest import LLAMA, forward, make

SMALL = dataclasses.replace(LLAMA, vocab_size=5)
PROMPTS = np.array([[0, 3], [2, 4]], np.int32)  # the first is one token, padded
LENGTHS = np.array([1, 2])
ROOM = 4


@functools.cache
def everything():
    """(model, params, {row: {continuation: log-probabilities of its tokens}}) for all continuations of ROOM tokens."""
    model, params = make(SMALL)
    endings = np.array(list(itertools.product(range(5), repeat=ROOM)), np.int32)
    found = {}
    for row, length in enumerate(LENGTHS):
        texts = np.concatenate([np.tile(PROMPTS[row, 2 - length :], (len(endings), 1)), endings], axis=1)
        hidden = forward(model)(params, texts[:, :-1])
        nll = np.asarray(score_tokens(Head(hidden, vocabulary_table(params)), texts[:, 1:]).nll)[:, length - 1 :]
        found[row] = {tuple(ending): -losses for ending, losses in zip(endings.tolist(), nll, strict=True)}
    return model, params, found


def best(found, beams, stop_ids=(), penalty=0.0):
    """The best of all distinct texts, each cut behind its first stop id."""
    texts = {}
    for ending, log_probs in found.items():
        stops = [place for place, token in enumerate(ending) if token in stop_ids]
        length = stops[0] + 1 if stops else ROOM
        texts[ending[:length]] = log_probs[:length].sum() / ((5 + length) / 6) ** penalty
    return sorted(texts.items(), key=lambda item: -item[1])[:beams]


@functools.cache
def jitted():
    return jax.jit(beam_search, static_argnames=("model", "beams", "max_new_tokens", "stop_ids", "length_penalty"))


@pytest.mark.parametrize("stop_ids, penalty", [((), 0.0), ((1, 3), 0.0), ((1, 3), 2.0)])
def test_a_beam_as_wide_as_the_tree_finds_the_best(stop_ids, penalty):
    model, params, found = everything()
    result = jitted()(model, params, PROMPTS, LENGTHS, beams=5**ROOM, max_new_tokens=ROOM, stop_ids=stop_ids, length_penalty=penalty)
    for row in range(2):
        expected = best(found[row], 20, stop_ids, penalty)
        ours = [tuple(np.asarray(result.tokens_BWS)[row, i, 2 : 2 + np.asarray(result.lengths_BW)[row, i]].tolist()) for i in range(20)]
        np.testing.assert_allclose(np.asarray(result.scores_BW)[row, :20], [score for _, score in expected], rtol=1e-4)
        assert set(ours[:10]) <= {text for text, _ in expected}


def test_scores_are_those_of_the_texts_and_wider_is_no_worse():
    model, params, found = everything()
    tops = []
    for beams in (1, 3):
        result = jitted()(model, params, PROMPTS, LENGTHS, beams=beams, max_new_tokens=ROOM)
        for row, beam in np.ndindex(2, beams):
            text = tuple(np.asarray(result.tokens_BWS)[row, beam, 2:].tolist())
            np.testing.assert_allclose(np.asarray(result.log_probs_BW)[row, beam], found[row][text].sum(), rtol=1e-4)
        tops.append(np.asarray(result.scores_BW)[:, 0])
    assert (tops[1] >= tops[0] - 1e-5).all()


def test_stopping_early_loses_nothing(monkeypatch):
    """The bound on what a live beam can still reach, with ended hypotheses that fill the set long before the last step."""
    model, params, _ = everything()
    options = {"beams": 2, "max_new_tokens": ROOM, "stop_ids": (1, 3), "length_penalty": 1.0}
    early = jitted()(model, params, PROMPTS, LENGTHS, **options)
    loop = jax.lax.while_loop
    monkeypatch.setattr(jax.lax, "while_loop", lambda go_on, step, carry: loop(lambda c: c[0].index < 2 + ROOM, step, carry))
    full = jax.jit(functools.partial(beam_search, model, **options))(params, PROMPTS, LENGTHS)
    np.testing.assert_allclose(early.scores_BW, full.scores_BW, rtol=1e-5)
    np.testing.assert_array_equal(early.lengths_BW, full.lengths_BW)
    with pytest.raises(ValueError, match="0 or more"):
        beam_search(model, params, PROMPTS, LENGTHS, beams=2, max_new_tokens=ROOM, length_penalty=float("nan"))


def test_one_beam_is_greedy():
    model, params, _ = everything()
    result = jitted()(model, params, PROMPTS, LENGTHS, beams=1, max_new_tokens=ROOM, stop_ids=(1,))
    keys = jax.random.split(jax.random.key(0), 2)
    sampling = Sampling(temperature=0.0, stop_ids=(1,))
    greedy = jax.jit(lambda params: generate(model, params, PROMPTS, LENGTHS, keys, sampling, max_new_tokens=ROOM))(params)
    for row in range(2):
        end = int(greedy.ends_B[row])
        assert int(result.lengths_BW[row, 0]) == end - 2
        np.testing.assert_array_equal(np.asarray(result.tokens_BWS)[row, 0, :end], np.asarray(greedy.tokens_BS)[row, :end])
    with pytest.raises(ValueError, match="at least 1"):
        beam_search(model, params, PROMPTS, LENGTHS, beams=0, max_new_tokens=ROOM)
