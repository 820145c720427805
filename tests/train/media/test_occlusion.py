"""Maps of what an answer rests on."""

import dataclasses

import jax
import numpy as np

from data.media.rows import Layout, RowFiller
from tests.train.media.conftest import EXPERIMENT, MODEL, objective, parameters
from train.explain.occlusion import draw_occlusions, find_occlusions, occlude
from train.objectives.media.media_lm import media_of
from train.sources.dataset import dataset_of
from train.sources.media.shapes import capacities_of, shapes_of


def test_a_place_is_worth_what_the_answer_loses_without_it(tmp_path):
    """The map of a picture, against the loss of the row whose place was taken out by hand."""
    sources, params = dataset_of(EXPERIMENT).open(), parameters(6.0)
    tokenizer, shapes = sources[0].tokenizer(), shapes_of(EXPERIMENT)
    source, split = dataset_of(EXPERIMENT).validation(sources)["image"]
    ((pieces, _),) = source.samples(split, np.arange(1), shapes, tokenizer, None)
    one = occlude(EXPERIMENT, params, pieces, tokenizer)
    assert one.kind == "image" and one.lost.shape == one.seen.shape == (4,) and one.answer

    batch = dataset_of(EXPERIMENT).batches_of([source], tokenizer, split).batch(0, 1)
    for part in (batch.weights, batch.slots):
        part[batch.segments > 1] = 0

    total = jax.jit(lambda params, batch: objective()(params, batch, None)[1]["loss"].total)

    def nats(batch):
        return float(total(params, batch))

    slots, tokens = batch.slots.copy(), batch.tokens.copy()
    place = np.flatnonzero(slots[0])[2]
    slots[0, place], tokens[0, place] = 0, tokenizer.specials["spare_7"]
    np.testing.assert_allclose(one.lost[2], nats(batch._replace(slots=slots, tokens=tokens)) - nats(batch), rtol=1e-3, atol=1e-4)

    found = find_occlusions(dataset_of(EXPERIMENT), params, sources, tokenizer)
    assert [one.kind for one in found] == ["image", "video", "audio", "image"]
    assert (
        draw_occlusions(found, shapes, tmp_path / "plots" / "occlusion.png")
        and (tmp_path / "plots" / "occlusion.png").stat().st_size > 10_000
    )


def test_attention_is_that_of_the_positions_that_predict_the_answer():
    """Written out for the first layer: what its queries at learned positions give to the keys of the picture's places."""
    sources = dataset_of(EXPERIMENT).open()
    experiment = dataclasses.replace(EXPERIMENT, model=dataclasses.replace(MODEL, num_layers=1, positions="learned"))
    params, tokenizer, shapes = parameters(6.0, experiment), sources[0].tokenizer(), shapes_of(experiment)
    source, split = dataset_of(experiment).validation(sources)["image"]
    ((pieces, _),) = source.samples(split, np.arange(1), shapes, tokenizer, None)
    filler = RowFiller(Layout(MODEL.context_length, capacities_of(experiment)), shapes, tokenizer, np.arange(1))
    filler.add(0, pieces)
    batch = filler.batch

    @jax.jit
    def stream(params):
        media = media_of(experiment.model, params, batch)
        return media.instead_of(params["embedding"]["table"][batch.tokens]) + params["positions"]["table"][batch.positions]

    x = np.asarray(stream(params))[0]
    layer = jax.tree.map(lambda leaf: np.asarray(leaf[0]), params["layers"])
    norm, attention = layer["attention_norm"], layer["attention"]
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + MODEL.norm_epsilon) * norm["scale"] + norm.get("bias", 0)
    q, k = (np.einsum("TD,DHK->THK", x, attention[name]["kernel"]) + attention[name].get("bias", 0) for name in ("query", "key"))
    scores = np.einsum("THK,SHK->HTS", q, k) / q.shape[-1] ** 0.5
    groups, inside = batch.groups[0], batch.segments[0] == 1
    scores = np.where((groups[:, None] >= groups) & inside, scores, -np.inf)
    learned = batch.weights[0] > 0
    weights = np.exp(scores - scores.max(-1, keepdims=True, where=inside, initial=-1e9))[:, learned]
    expected = (weights / weights.sum(-1, keepdims=True)).mean((0, 1))[batch.slots[0] > 0]
    found = occlude(experiment, params, pieces, tokenizer).seen
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)
    assert expected.std() > 1e-3
