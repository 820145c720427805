"""Rows of media: what is in them is what the samples hold, and any row can be made alone."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.errors import UserError
from data.loading.process_prefetch import ProcessPrefetch
from data.media.batches import StepMaker, Unusable
from data.media.kinds import Part, Sample
from data.media.packing import pack
from data.media.rows import MISSING, Layout, Piece, RowFiller, encoded_places
from data.media.shards import write_media
from data.media.signals.augment_config import Augment
from data.media.signals.patches import unpatchify
from data.media.signals.shapes import ImageShape, frames_of
from data.media.source import ShardSource
from data.media.world import World
from data.tokenizer import character_tokenizer
from tests.data.media.media_files import audio_file, image_file, video_file
from tests.data.media.media_rows import LAYOUT, SHAPES, TOKENIZER, batches, with_facts


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 5)), min_size=1, max_size=200))
def test_every_sample_that_fits_is_in_one_row_and_no_row_overflows(costs):
    costs, room = np.array(costs), np.array([8, 4])
    start, samples = pack(costs, room)
    assert sorted(samples) == np.flatnonzero((costs <= room).all(1)).tolist()
    for row in range(len(start) - 1):
        inside = samples[start[row] : start[row + 1]]
        assert len(inside) and (costs[inside].sum(0) <= room).all()


def test_equal_samples_fill_their_rows():
    start, samples = pack(np.full((10, 2), 2), np.array([7, 9]))
    assert np.diff(start).tolist() == [3, 3, 3, 1] and samples.tolist() == list(range(10))


def test_rows_are_a_function_of_seed_and_number():
    made = batches(seed=3)
    whole = made.batch(5, 6)
    for row in range(6):
        alone = batches(seed=3).batch(5 + row, 1)
        for one, other in zip(flat(whole), flat(alone), strict=True):
            np.testing.assert_array_equal(one[row], other[0])
    assert any((one != other).any() for one, other in zip(flat(whole), flat(batches(seed=4).batch(5, 6)), strict=True))


def test_processes_make_the_same_rows():
    made = batches(seed=3)
    maker = StepMaker(made, first_row=7, stride=4, count=2)
    with ProcessPrefetch(maker, 0, processes=2, depth=3) as stream:
        for number in range(4):
            found = maker.whole(next(stream))
            for one, other in zip(flat(found), flat(made.batch(7 + 4 * number, 2)), strict=True):
                np.testing.assert_array_equal(one, other)


def flat(batch):
    return [leaf for part in batch for leaf in (part if isinstance(part, tuple) else (part,))]


def test_an_epoch_has_every_sample_once():
    made = batches(seed=1)
    _, _, numbers = made.samples(0, made.rows_per_epoch)
    assert sorted(numbers) == list(range(60)) and made.left_out == 0


@pytest.mark.parametrize("world", [World(scenes=60), World(("image", "video", "audio"), scenes=60)], ids=["all", "media"])
def test_slots_lead_to_the_pictures_of_their_samples(world):
    """Each block of places that a row points at is, as pixels, what the sample's scene looks like; every text is the sample's."""
    made = batches(world, seed=0)
    count = made.rows_per_epoch
    batch = made.batch(0, count)
    rows, _, numbers = made.samples(0, count)
    assert batch.image.segments.max() > ("text" not in world.tasks)  # then some rows hold two pictures
    for row in range(count):
        for place, number in enumerate(numbers[rows == row]):
            pieces, _ = world.samples("train", np.array([number]), SHAPES, TOKENIZER, None)[0]
            inside = batch.segments[row] == place + 1
            learned = batch.targets[row][inside & (batch.weights[row] > 0)]
            assert TOKENIZER.decode(learned[:-1]) == TOKENIZER.decode(pieces[-1].content)
            assert learned[-1] == TOKENIZER.specials["document_end"]
            slots = batch.slots[row][inside]
            if pieces[0].kind == "text":
                assert not slots.any()
                continue
            shape = SHAPES[pieces[0].kind]
            base = sum(
                encoded_places(SHAPES[kind], LAYOUT.capacity[kind])
                for kind in ("image", "video", "audio")[: ("image", "video", "audio").index(shape.kind)]
            )
            tokens = slots[slots > 0] - 1 - base
            each = shape.rate * shape.block**2
            patches = (tokens[:, None] * each + np.arange(each)).reshape(-1)
            packed = getattr(batch, shape.kind)
            np.testing.assert_array_equal(packed.patches[row, patches], pieces[0].content.patches)
            np.testing.assert_array_equal(packed.places[row, patches], pieces[0].content.places)
            assert len(set(packed.segments[row, patches])) == 1


def test_what_is_learned_is_predicted_from_what_was_before():
    batch = batches(seed=0).batch(0, 4)
    inside = batch.segments > 0
    same = inside[:, 1:] & (batch.segments[:, 1:] == batch.segments[:, :-1])
    np.testing.assert_array_equal(batch.tokens[:, 1:][same], batch.targets[:, :-1][same])
    for row in range(4):
        for segment in range(1, batch.segments[row].max() + 1):
            here = batch.segments[row] == segment
            groups, learned = batch.groups[row][here], batch.weights[row][here] > 0
            first = int(learned.argmax())
            assert len(set(groups[: first + 1])) == 1  # all that the first learned token is predicted from is read both ways
            assert (np.diff(groups[first:]) > 0).all()
            assert batch.positions[row][here].tolist() == list(range(here.sum()))


def test_without_a_prefix_only_the_places_of_a_medium_see_one_another():
    layout = Layout(160, LAYOUT.capacity, prefix=False)
    batch = batches(World(("image",), scenes=8), layout=layout).batch(0, 1)
    here = batch.segments[0] == 1
    slots, groups = batch.slots[0][here], batch.groups[0][here]
    assert len(set(groups[slots > 0])) == 1 and (np.diff(groups[slots == 0]) > 0).all()


def test_a_model_that_is_kept_blind_gets_no_patch():
    layout = Layout(160, LAYOUT.capacity, dropped=1.0)
    batch, seen = batches(seed=0, layout=layout).batch(0, 8), batches(seed=0).batch(0, 8)
    assert not batch.slots.any() and not any(getattr(batch, kind).segments.any() for kind in SHAPES)
    np.testing.assert_array_equal(batch.tokens == TOKENIZER.specials[MISSING], seen.slots > 0)
    np.testing.assert_array_equal(batch.weights, seen.weights)
    some = batches(seed=0, layout=Layout(160, LAYOUT.capacity, dropped=0.3)).batch(0, 24)
    share = (some.tokens == TOKENIZER.specials[MISSING]).sum() / ((some.tokens == TOKENIZER.specials[MISSING]) | (some.slots > 0)).sum()
    assert 0.1 < share < 0.5


def test_samples_that_no_row_has_room_for_are_left_out_or_an_error():
    with pytest.raises(UserError, match="none of 60 samples of train fits 40 tokens"):
        batches(World(("text",), scenes=60), layout=Layout(40, LAYOUT.capacity))
    assert batches(World(("text", "audio"), scenes=60), layout=Layout(50, LAYOUT.capacity)).left_out == 30


def test_latents_are_as_many_for_each_medium():
    shapes = {"image": ImageShape(patch=4, rows=4, columns=4, latents=3)}
    layout = Layout(40, {"image": 32})
    filler = RowFiller(layout, shapes, TOKENIZER, np.arange(1))
    for size in ((8, 8), (16, 12)):
        grid = tuple(side // 4 for side in size)
        filler.add(0, [Piece("image", shapes["image"].cut(np.zeros((*size, 3), np.uint8), grid)), Piece("text", np.array([65]), True)])
    assert filler.batch.slots[0][filler.batch.slots[0] > 0].tolist() == [1, 2, 3, 4, 5, 6]
    assert shapes["image"].charged(np.array([4, 0])).tolist() == [16, 0]


@pytest.fixture
def shards(tmp_path):
    """Samples of every kind, and a picture that is broken."""
    samples = [
        Sample((Part("image", image_file(form="PNG")), Part("text", "what?"), Part("text", "waves", learned=True))),
        Sample((Part("video", video_file()), Part("text", "grey", learned=True))),
        Sample((Part("text", "hear "), Part("audio", audio_file()), Part("text", "a tone", learned=True))),
        Sample((Part("image", image_file()[:400]), Part("text", "broken", learned=True))),
    ]
    return write_media(str(tmp_path / "shards"), {"train": map(with_facts, samples)})


def test_shards_are_decoded_at_the_size_that_was_planned(shards):
    source = ShardSource(shards)
    made = batches(source, max_damaged=1)
    batch = made.batch(0, made.rows_per_epoch)
    assert made.damaged == {(0, 3)}
    texts = {
        TOKENIZER.decode(batch.targets[row][(batch.segments[row] == s) & (batch.weights[row] > 0)][:-1])
        for row in range(len(batch.rows))
        for s in (1, 2, 3, 4)
    }
    assert texts - {""} == {"waves", "grey", "a tone"}
    row = int(np.flatnonzero(batch.image.segments.any(1))[0])
    picture = unpatchify(batch.image.patches[row : row + 1, :16], 4, 4, 4, block=2)[0]
    assert picture.std() > 20 and batch.video.segments.any() and batch.audio.segments.any()
    with pytest.raises(UserError, match="sample 3 of train: .*cannot be decoded"):
        batches(source).batch(0, made.rows_per_epoch)


def test_classes_are_named_where_samples_have_no_text(tmp_path):
    samples = [Sample((Part("image", image_file()),), label=label) for label in (0, 1)]
    source = ShardSource(write_media(str(tmp_path), {"train": map(with_facts, samples)}, classes=["cat", "dog"]), question="which?")
    found = source.samples("train", np.arange(2), SHAPES, TOKENIZER, None)
    for (pieces, label), name in zip(found, ("cat", "dog"), strict=True):
        assert [TOKENIZER.decode(piece.content) for piece in pieces[1:]] == ["which? ", name] and pieces[-1].learned
        assert label == ("cat", "dog").index(name)
    assert source.sizes("train", SHAPES, TOKENIZER).tolist() == [[10, 16, 0, 0, 5]] * 2


@pytest.mark.parametrize("tokenizer", [TOKENIZER, character_tokenizer("what? waves grey hear a tone broken")], ids=["byte", "character"])
@pytest.mark.parametrize("class_token", [False, True])
def test_sizes_are_those_of_what_comes(shards, tokenizer, class_token):
    source = ShardSource(shards)
    with_token = {"block": 1, "class_token": True}
    shapes = {
        kind: dataclasses.replace(shape, **with_token) if class_token and kind != "audio" else shape for kind, shape in SHAPES.items()
    }
    sizes = source.sizes("train", shapes, tokenizer)
    for size, sample in zip(sizes, source.samples("train", np.arange(4), shapes, tokenizer, None), strict=True):
        if isinstance(sample, Unusable):
            continue
        pieces, _ = sample
        assert size[0] == sum(len(piece.content) for piece in pieces if piece.kind == "text")
        for place, kind in enumerate(("image", "video", "audio"), 1):
            assert size[place] == sum(len(piece.content.patches) for piece in pieces if piece.kind == kind)


def test_a_class_token_comes_before_the_patches_of_each_picture(shards):
    """At -1 along both axes, and in the row; the picture itself is as it is without."""
    plain = {"image": dataclasses.replace(SHAPES["image"], block=1)}
    led = {"image": dataclasses.replace(plain["image"], class_token=True)}
    source = ShardSource(shards)
    (without, _), (found, _) = (source.samples("train", np.array([0]), shapes, TOKENIZER, None)[0] for shapes in (plain, led))
    (bare,), (cut,) = ([piece.content for piece in pieces if piece.kind == "image"] for pieces in (without, found))
    assert cut.places[0].tolist() == [-1, -1] and not cut.patches[0].any()
    np.testing.assert_array_equal(cut.patches[1:], bare.patches)
    np.testing.assert_array_equal(cut.places[1:], bare.places)
    np.testing.assert_array_equal(frames_of(led["image"], cut), frames_of(plain["image"], bare))
    filler = RowFiller(Layout(96, {"image": 2 * led["image"].most}), led, TOKENIZER, np.arange(1))
    filler.add(0, found)
    assert (filler.batch.slots > 0).sum() == len(cut.patches)


def test_media_of_training_are_changed_as_asked_and_others_never(shards):
    """Each option by itself changes the kind that it is for, differently by seed, and nothing where no chance is allowed."""
    for kind, options in (
        ("image", [{"crop_area": (0.2, 0.5)}, {"flip": 1.0}, {"contrast": 0.9}, {"randaugment": 2}, {"cutout": 0.9}]),
        ("video", [{"brightness": 0.9}, {"time_jitter": 1.0}]),
        ("audio", [{"noise": (0.0, 5.0), "noise_chance": 1.0}, {"time_masks": 4, "time_share": 0.5}, {"band_masks": 4}]),
    ):
        index = ("image", "video", "audio").index(kind)

        def content(augment, seeds, index=index, kind=kind):
            ((pieces, _),) = ShardSource(shards, augment=augment).samples("train", np.array([index]), SHAPES, TOKENIZER, seeds)
            return next(piece.content.patches for piece in pieces if piece.kind == kind)

        for changes in options:
            augment = Augment(**changes)
            assert (content(augment, [1]) != content(Augment(), [1])).any(), changes
            np.testing.assert_array_equal(content(augment, [1]), content(augment, [1]))
            np.testing.assert_array_equal(content(augment, None), content(Augment(), None))
    quiet = Augment(noise=(0.0, 5.0), noise_chance=0.0)
    np.testing.assert_array_equal(
        *(
            ShardSource(shards, augment=one).samples("train", np.array([2]), SHAPES, TOKENIZER, [1])[0][0][1].content.patches
            for one in (quiet, Augment())
        )
    )


def test_there_is_a_weight_for_each_source_or_none():
    sources = [World(scenes=60, validation=25)] * 2
    for weights in ((1.0,), (1.0, 2.0, 3.0)):
        with pytest.raises(UserError, match=f"{len(weights)} weights for 2 sources"):
            batches(*sources, weights=weights)
