"""The world of shapes: what is rendered is what is described, and what is asked can be answered from it."""

import random

import numpy as np
import pytest

from data.media.signals.shapes import RATE, AudioShape, Cut, ImageShape, VideoShape
from data.media.world import (
    COLOURS,
    NUMBERS,
    PITCHES,
    READING,
    UNSEEN,
    WRITING,
    World,
    ask,
    make_scene,
    recognise,
    render_audio,
    render_image,
    render_video,
)

SCENES = [make_scene(random.Random(seed)) for seed in range(30)]
SIZE = 32


def coverage(picture, colour):
    """Share of each pixel that has a colour on the dark ground."""
    ground, full = np.array([24.0] * 3), np.array(COLOURS[colour], np.float64)
    share = ((picture - ground) @ (full - ground)) / ((full - ground) ** 2).sum()
    rest = np.abs(picture - ground - share[..., None] * (full - ground)).max(-1)
    return np.where(rest < 4, np.clip(share, 0, 1), 0)  # of this colour and of no other


def test_a_picture_shows_each_thing_in_its_cell_and_nothing_else():
    for scene in SCENES:
        picture = render_image(scene, SIZE).astype(np.float64)
        for thing in scene.things:
            y, x = ((np.array(thing.cell) + 0.5) * SIZE / 2).astype(int)
            assert picture[y, x].tolist() == list(COLOURS[thing.colour])
        cells = {thing.cell for thing in scene.things}
        for row, column in {(0, 0), (0, 1), (1, 0), (1, 1)} - cells:
            assert (picture[row * 16 : row * 16 + 16, column * 16 : column * 16 + 16] == 24).all()


def test_shapes_differ_in_more_than_their_size():
    """No two shapes overlap in more than nine tenths of what either covers."""
    masks = {}
    for scene in SCENES:
        for thing in scene.things:
            row, column = thing.cell
            cell = render_image(scene, SIZE)[row * 16 : row * 16 + 16, column * 16 : column * 16 + 16].astype(np.float64)
            masks[thing.shape] = coverage(cell, thing.colour)
    assert len(masks) == 4
    for one in masks:
        for other in set(masks) - {one}:
            both, either = np.minimum(masks[one], masks[other]).sum(), np.maximum(masks[one], masks[other]).sum()
            assert both < 0.9 * either


def test_things_move_where_they_go_and_stay_in_their_cells():
    for scene in SCENES[:10]:
        clip = render_video(scene, SIZE, 6).astype(np.float64)
        for thing in scene.things:
            centres = []
            for frame in clip:
                share = coverage(frame, thing.colour)
                assert share.sum() > 10
                centres.append(np.array([(share * axis).sum() for axis in np.mgrid[:SIZE, :SIZE]]) / share.sum())
                assert (np.floor_divide(centres[-1], SIZE / 2) == thing.cell).all()
            way = centres[-1] - centres[0]
            along = {"up": -way[0], "down": way[0], "left": -way[1], "right": way[1]}
            assert max(along, key=along.get) == thing.direction and along[thing.direction] > 3


def test_each_third_of_a_recording_has_the_pitch_of_its_thing():
    for scene in SCENES[:10]:
        sound = render_audio(scene, np.random.default_rng(0))
        third = len(sound) // 3
        for number in range(3):
            part = sound[number * third : (number + 1) * third]
            if number >= len(scene.things):
                assert np.abs(part).max() < 0.03
                continue
            loudest = np.argmax(np.abs(np.fft.rfft(part))) * RATE / third
            nearest = min(PITCHES, key=lambda shape: abs(np.log(PITCHES[shape] / loudest)))
            assert nearest == scene.things[number].shape


def test_answers_follow_from_the_scene():
    rng = random.Random(0)
    for scene in SCENES:
        for task in READING:
            question, answer = ask(rng, scene, task)
            by_name = {name: thing for thing in scene.things for name in (thing.shape, thing.colour)}
            asked = [by_name[name] for name in by_name if f" {name}" in question]
            match question.split()[0]:
                case "how":
                    assert answer == NUMBERS[len(scene.things)]
                case "colour":
                    assert answer == asked[0].colour
                case "shape":
                    assert answer == asked[0].shape
                case "where":
                    assert answer == asked[0].direction
                case "which":
                    assert answer == scene.things[0 if "first" in question else -1].shape
                case "what":
                    assert answer.count("a ") == len(scene.things)
                    assert all(f"a {thing.colour} {thing.shape}" in answer for thing in scene.things)


def test_some_pairs_are_never_seen_in_training():
    for seed in range(100):
        rng = random.Random(seed)
        seen, unseen = ({(thing.shape, thing.colour) for thing in make_scene(rng, unseen=kept).things} for kept in (False, True))
        assert not seen & UNSEEN and unseen & UNSEEN


def test_unknown_tasks_are_refused():
    with pytest.raises(ValueError, match="tasks of the world are"):
        World(("smell",))


WRITTEN = {
    "draw": ImageShape(patch=4, rows=8, columns=8, square=True),
    "film": VideoShape(frames=2, patch=6, times=4, rows=4, columns=4, square=True),
    "play": AudioShape(times=48),
}


@pytest.mark.parametrize("task", WRITING)
def test_what_is_rendered_is_recognised_and_nothing_else_is(task):
    """Every scene by its own description, also beside noise; and with another scene's medium by that one's."""
    shape, said = WRITTEN[task], set()
    for seed in range(20):
        scene = make_scene(random.Random(seed), unseen=seed % 2 == 0)
        rng = np.random.Generator(np.random.Philox(seed))
        match task:
            case "draw":
                cut = shape.cut(render_image(scene, 32), shape.largest)
            case "film":
                cut = shape.cut(render_video(scene, 24, 8), shape.largest)
            case "play":
                cut = shape.cut(render_audio(scene, rng), shape.largest)
        assert recognise(cut, shape) == scene.description(task)
        noisy = cut.patches + rng.normal(0, 0.05 if task == "play" else 10, cut.patches.shape)
        noisy = noisy if task == "play" else np.clip(noisy, 0, 255).astype(np.uint8)
        assert recognise(Cut(noisy, cut.places), shape) == scene.description(task)
        said.add(scene.description(task))
    assert len(said) > 10
    silence = np.zeros(shape.cut(np.zeros(10), (96,)).patches.shape) - 1.5 if task == "play" else np.full(cut.patches.shape, 24, np.uint8)
    assert recognise(Cut(silence, cut.places), shape) == ""
