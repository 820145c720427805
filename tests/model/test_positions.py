"""Rotary frequencies against their definitions, one pair at a time, and what each way of stretching a context promises."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from model.config import ModelConfig
from model.positions import rotary_angles, rotary_frequencies
from tests.model.oracle import frequency

PLAIN = ModelConfig(vocab_size=61, embed_dim=64, num_heads=1, positions="rotary", rotary_base=10_000.0)


def scaled(kind: str, factor: float = 4.0) -> ModelConfig:
    context = 256 if kind in ("yarn", "llama3") else 0
    return dataclasses.replace(PLAIN, rotary_scaling=kind, rotary_factor=factor, rotary_original_context=context)


@pytest.mark.parametrize("kind", ["none", "linear", "ntk", "yarn", "llama3"])
def test_frequencies_follow_their_definitions(kind):
    config = PLAIN if kind == "none" else scaled(kind)
    expected = [frequency(number, 32, config) for number in range(32)]
    np.testing.assert_allclose(rotary_frequencies(config), expected, rtol=1e-5)


@pytest.mark.parametrize("kind", ["ntk", "yarn", "llama3"])
def test_fast_pairs_are_left_alone_and_slow_ones_interpolated(kind):
    ratio = np.asarray(rotary_frequencies(scaled(kind)) / rotary_frequencies(PLAIN))
    np.testing.assert_allclose([ratio[0], ratio[-1]], [1.0, 0.25], rtol=1e-5)
    assert (np.diff(ratio) <= 1e-6).all() and len(set(ratio.round(4))) > 3


def test_interpolated_positions_are_the_positions_divided():
    """Chen et al. 2023, eq. 4: four times the position, a quarter of the frequency."""
    positions = jnp.arange(8)[None]
    for found, expected in zip(rotary_angles(4 * positions, scaled("linear")), rotary_angles(positions, PLAIN), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_yarn_scales_scores_by_its_temperature():
    """sin^2 + cos^2 is 1 / t of Peng et al. 2023, eq. 22, at every position; elsewhere it is 1."""
    for config, expected in ((scaled("yarn", 16.0), (0.1 * np.log(16.0) + 1) ** 2), (scaled("llama3"), 1.0)):
        sin, cos = rotary_angles(jnp.arange(5)[None], config)
        np.testing.assert_allclose(sin**2 + cos**2, expected, rtol=1e-5)


@pytest.mark.parametrize(
    "change, words",
    [
        ({"rotary_scaling": "yarn", "rotary_factor": 4.0}, "yarn and llama3 need it"),
        ({"rotary_scaling": "linear", "rotary_original_context": 64}, "have no use for it"),
        ({"rotary_factor": 2.0}, "rotary_scaling is none"),
        ({"rotary_scaling": "linear", "rotary_factor": 0.5}, "at least 1"),
        ({"rotary_scaling": "linear", "positions": "learned"}, "needs model.positions rotary"),
        ({"rotary_scaling": "ntk", "head_dim": 2}, "has but one"),
        ({"global_every": 2}, "without model.window"),
        ({"global_every": 1, "window": 4}, "leave model.window out"),
        ({"window": -1}, "model.window is -1"),
        ({"attention_softcap": float("nan")}, "attention_softcap is nan"),
    ],
)
def test_settings_that_make_no_sense_together_are_refused(change, words):
    with pytest.raises(ValueError, match=words):
        dataclasses.replace(PLAIN, **change)
