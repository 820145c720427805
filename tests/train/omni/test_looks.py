"""Maps of what an answer rests on."""

import jax
import numpy as np

from tests.train.omni.conftest import EXPERIMENT, objective, parameters
from train.omni.looks import draw_looks, find_looks, look_at
from train.omni.sources import judged, make_media_batches, open_media, shapes_of


def test_a_place_is_worth_what_the_answer_loses_without_it(tmp_path):
    """The map of a picture, against the loss of the row whose place was taken out by hand."""
    sources, params = open_media(EXPERIMENT), parameters(6.0)
    tokenizer, shapes = sources[0].tokenizer(), shapes_of(EXPERIMENT)
    source, split = judged(EXPERIMENT, sources)["image"]
    ((pieces, _),) = source.samples(split, np.arange(1), shapes, tokenizer, None)
    look = look_at(EXPERIMENT, params, pieces, tokenizer)
    assert look.kind == "image" and look.lost.shape == look.seen.shape == (4,) and look.answer
    assert (look.seen > 0).all() and look.seen.sum() < 1

    batch = make_media_batches(EXPERIMENT, [source], tokenizer, split).batch(0, 1)
    for part in (batch.weights, batch.slots):
        part[batch.segments > 1] = 0

    total = jax.jit(lambda params, batch: objective()(params, batch, None)[1]["loss"].total)

    def nats(batch):
        return float(total(params, batch))

    slots, tokens = batch.slots.copy(), batch.tokens.copy()
    place = np.flatnonzero(slots[0])[2]
    slots[0, place], tokens[0, place] = 0, tokenizer.specials["spare_7"]
    np.testing.assert_allclose(look.lost[2], nats(batch._replace(slots=slots, tokens=tokens)) - nats(batch), rtol=1e-3, atol=1e-4)

    looks = find_looks(EXPERIMENT, params, sources, tokenizer)
    assert [look.kind for look in looks] == ["image", "video", "audio", "image"]
    assert draw_looks(looks, shapes, tmp_path / "plots" / "looks.png") and (tmp_path / "plots" / "looks.png").stat().st_size > 10_000
