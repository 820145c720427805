"""The joint loss: what each part of a row may depend on, and what the terms add up to."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data.errors import UserError
from model.config import ModelConfig
from model.transformer import Decoder, Media
from tests.train.media.conftest import CROSS, EXPERIMENT, MODEL, objective, parameters, rows
from train.experiment import CausalLM
from train.objectives.media.media_lm import exact_answers, media_of
from train.sources.dataset import check_reads
from train.sources.media.shapes import shapes_of


@jax.jit
def hidden(params, batch):
    media = media_of(MODEL, params, batch)
    where = {"segments_BT": batch.segments, "positions_BT": batch.positions}
    return Decoder(MODEL).apply({"params": params}, batch.tokens, **where, media=media).hidden_BTD


@jax.jit
def losses(params, batch):
    return objective()(params, batch, None)[:2]


def test_samples_of_a_row_do_not_see_one_another(batch):
    """Whatever happens to the tokens and patches of one sample, the others of its row are what they were; it is not."""
    before = np.asarray(hidden(parameters(), batch))
    changed = 0
    for row in range(len(batch.rows)):
        first = batch.segments[row] == 1
        slots = batch.slots[row][first & (batch.slots[row] > 0)]
        if not len(slots) or slots.min() > 8 or batch.segments[row].max() < 2:  # a picture, whose four patches are its first places
            continue
        patches = batch.image.patches.copy()
        patches[row, slots - 1] = 255 - patches[row, slots - 1]
        after = np.asarray(hidden(parameters(), batch._replace(image=batch.image._replace(patches=patches))))
        same = np.abs(after - before).max(-1) < 1e-5
        assert same[np.arange(len(same)) != row].all() and same[row][~first & (batch.segments[row] > 0)].all()
        learned = first & (batch.weights[row] > 0)
        assert not same[row][learned].any()
        changed += 1
    assert changed


def test_answers_do_not_see_what_comes_after(batch):
    """Changing a learned token changes no prediction made before it, though all that is read is read both ways."""
    before = np.asarray(hidden(parameters(), batch))
    row = 0
    place = int(np.flatnonzero(batch.weights[row] > 0)[1])  # the first learned token as an input
    tokens = batch.tokens.copy()
    tokens[row, place] += 1
    after = np.asarray(hidden(parameters(), batch._replace(tokens=tokens)))
    same = np.abs(after - before).max(-1)[row] < 1e-6
    assert same[:place].all() and not same[place]


def test_with_unit_weights_the_loss_is_the_sum_of_the_modalities(batch):
    terms, metrics = losses(parameters(), batch)
    assert set(terms) == {"text_loss", "image_loss", "video_loss", "audio_loss"} and all(term.coefficient == 1 for term in terms.values())
    total, weight = (sum(float(getattr(term, name)) for term in terms.values()) for name in ("total", "weight"))
    assert total == pytest.approx(float(metrics["loss"].total), rel=1e-5) and weight == float(metrics["loss"].weight) == batch.weights.sum()
    for number, kind in enumerate(("text", "image", "video", "audio")):
        assert float(terms[f"{kind}_loss"].weight) == (batch.weights * (batch.modalities == number)).sum() > 0


def test_only_the_encoder_of_a_medium_learns_from_its_tokens(batch):
    found = jax.jit(jax.grad(lambda params: objective()(params, batch, None)[0]["image_loss"].total))(parameters())
    for kind in ("image", "video", "audio"):
        norm = sum(float(jnp.abs(leaf).sum()) for leaf in jax.tree.leaves(found[kind]))
        assert (norm > 0) == (kind == "image")


def test_closed_gates_are_the_text_model_and_open_ones_are_shown_what_came_before():
    """Media that are attended to change nothing at first; then they reach the texts of their own samples, and those alone."""
    batch, params = rows(CROSS).batch(0, 6), parameters(experiment=CROSS)
    assert not batch.slots.any() and batch.image.segments.any()
    where = {"segments_BT": batch.segments, "positions_BT": batch.positions}

    @jax.jit
    def run(params, batch, blind):
        media = media_of(CROSS.model, params, batch)
        media = dataclasses.replace(media, hidden_BMD=jnp.where(blind, 0, media.hidden_BMD))
        return Decoder(CROSS.model).apply({"params": params}, batch.tokens, **where, media=media).hidden_BTD

    @jax.jit
    def text_alone(params, batch):
        media = Media(jnp.zeros((6, 1, 32)), batch.slots, batch.groups)
        return Decoder(CROSS.model).apply({"params": params}, batch.tokens, **where, media=media).hidden_BTD

    closed = run(params, batch, False)
    np.testing.assert_array_equal(closed, run(params, batch, True))
    np.testing.assert_allclose(closed, text_alone(params, batch), atol=1e-5)  # two programs, which may round differently
    opened = jax.tree_util.tree_map_with_path(lambda path, x: x + 1.0 if "gate" in path[-1].key else x, params["cross"])
    seen, changed = (np.asarray(run(params | {"cross": opened}, batch, blind)) for blind in (False, True))
    differs = np.abs(seen - changed).max(-1) > 1e-5
    about = np.zeros_like(differs)
    for kind in ("image", "video", "audio"):
        samples = getattr(batch, kind).samples
        for row, place in zip(*np.nonzero(samples), strict=True):
            about[row] |= batch.segments[row] == samples[row, place]
    assert (differs == about)[batch.weights > 0].all() and not differs[(batch.segments > 0) & ~about].any()


def test_exact_answers_are_those_without_a_miss():
    hit = jnp.array([[1.0, 0, 1, 1, 1, 0, 1]])
    weights = jnp.array([[0.0, 0, 1, 1, 1, 1, 0]])
    segments = jnp.array([[1, 1, 1, 2, 2, 3, 0]])
    assert [x.tolist() for x in exact_answers(hit, weights, segments)] == [[2.0], [3.0]]


def test_the_world_needs_a_model_with_encoders():
    with pytest.raises(UserError, match="needs a model with encoders"):
        shapes_of(dataclasses.replace(EXPERIMENT, model=ModelConfig()))
    with pytest.raises(UserError, match="do not belong together"):
        check_reads(dataclasses.replace(EXPERIMENT, objective=CausalLM()))
