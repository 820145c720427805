import numpy as np
import pytest

from data.media.signals import augment
from data.media.signals.augment import (
    add_noise,
    augment_pixels,
    clip_times,
    colour_jitter,
    crop_box,
    cutout,
    flip,
    generator,
    randaugment,
    random_box,
    spec_augment,
)
from data.media.signals.augment_config import Augment
from tests.data.media.media_files import picture, tone

EVERYTHING = Augment((0.3, 1.0), flip=0.5, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, randaugment=2, cutout=0.3)


def draws(count=50):
    return [generator(0, 0, example) for example in range(count)]


def test_a_generator_is_of_its_example_alone():
    """Equal again, different in seed, row, example and purpose; and of sizes that counters and hashes have."""
    places = [(0, 0, 0, 0), (1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1), (-1, 1 << 40, 1 << 40, 3)]
    first = [generator(*place).random(4).tolist() for place in places]
    assert first == [generator(*place).random(4).tolist() for place in places]
    assert len({tuple(values) for values in first}) == len(places)
    together = np.array([generator(7, row, example).random() for row in range(30) for example in range(30)])
    assert abs(together.mean() - 0.5) < 0.04 and abs(np.corrcoef(together[1:], together[:-1])[0, 1]) < 0.1


def test_augmentation_is_a_pure_function():
    pixels = picture(32, 40)
    before = pixels.copy()
    for example in range(20):
        results = [augment_pixels(EVERYTHING, pixels, draw) for draw in (generator(1, 2, example), generator(1, 2, example))]
        assert (results[0] == results[1]).all()
        assert results[0].shape == pixels.shape and results[0].dtype == np.uint8
        assert (pixels == before).all()
    assert augment_pixels(Augment(), pixels, generator(0, 0, 0)) is pixels
    assert crop_box(Augment(), generator(0, 0, 0)) is None


def test_frames_of_a_clip_share_every_chance():
    """A clip of one picture stays one of one picture, whatever is done to it."""
    clip = np.stack([picture(24, 24)] * 3)
    for example in range(40):
        found = augment_pixels(EVERYTHING, clip, generator(0, 0, example))
        assert (found == found[:1]).all()
    with_others = np.stack([picture(24, 24), picture(24, 24, seed=1)])
    flipped = [flip(with_others, draw) for draw in draws()]
    assert {(one == with_others).all() for one in flipped} == {True, False}


def test_boxes_have_the_area_asked_for_and_lie_inside():
    boxes = np.array([random_box(draw, (0.2, 0.5), (0.5, 2)) for draw in draws(300)])
    top, left, bottom, right = boxes.T
    area = (bottom - top) * (right - left)
    assert (boxes >= 0).all() and (boxes <= 1).all()
    assert 0.2 - 1e-9 <= area.min() < 0.22 and 0.48 < area.max() <= 0.5 + 1e-9
    aspect = (right - left) / (bottom - top)
    assert 0.5 - 1e-9 <= aspect.min() < 0.6 and 1.7 < aspect.max() <= 2 + 1e-9
    assert top.min() < 0.05 and bottom.max() > 0.95 and left.min() < 0.05 and right.max() > 0.95
    np.testing.assert_allclose([random_box(draw, (1.0, 1.0)) for draw in draws(20)], [[0, 0, 1, 1]] * 20, atol=1e-9)


def test_colours_change_as_their_names_say():
    pixels = picture(32, 32)
    assert (colour_jitter(pixels, generator(0, 0, 0), 0, 0, 0, 0) == pixels).all()
    grey = np.repeat(pixels[..., :1], 3, axis=-1)
    for draw in draws(10):
        jittered = colour_jitter(grey, draw, 0, 0, 0.9, 0.5).astype(int)
        assert np.abs(jittered - grey).max() <= 1  # what has no colour gets none
    values = pixels.astype(np.float32)
    assert np.ptp(augment._saturation(values, 0.0), axis=-1).max() < 1e-3
    assert augment._contrast(values, 0.0).std() < 1e-3
    np.testing.assert_allclose(augment._brightness(values, 0.5), values / 2)
    muted = 100 + values / 10  # which no clipping touches
    np.testing.assert_allclose(augment._grey(augment._hue(muted, 0.3)), augment._grey(muted), atol=0.5)
    np.testing.assert_allclose(augment._hue(augment._hue(muted, 0.3), -0.3), muted, atol=0.1)


def test_cutout_is_a_grey_square_and_nothing_else_changes():
    pixels = np.zeros((20, 30, 3), np.uint8)
    areas = []
    for draw in draws():
        found = cutout(pixels, draw, 0.5)
        assert set(np.unique(found)) <= {0, 128}
        rows, columns = np.nonzero(found[..., 0])
        areas.append(len(rows))
        assert len(rows) == len(set(rows)) * len(set(columns))
    assert max(areas) == 100 and min(areas) < 100


def test_randaugment_gets_stronger_with_its_magnitude():
    pixels = picture(32, 32)
    change = {
        magnitude: np.mean([np.abs(randaugment(pixels, draw, 2, magnitude).astype(int) - pixels).mean() for draw in draws(100)])
        for magnitude in (1, 9)
    }
    assert 0 < change[1] < change[9]
    flat = np.full((16, 16, 3), 77, np.uint8)
    for draw in draws():
        assert randaugment(flat, draw, 3, 9.0).shape == flat.shape


def test_moving_keeps_what_stays_inside():
    pixels = picture(20, 20)
    shifted = augment._moved(pixels, [[1, 0], [0, 1]], (3, -2))
    assert (shifted[:-3, 2:] == pixels[3:, :-2]).all()
    assert (shifted[-3:] == 128).all() and (shifted[:, :2] == 128).all()
    assert (augment._moved(pixels, [[0, -1], [1, 0]], (0, 0)) == np.rot90(pixels, -1)).all()


def test_spreading_uses_all_values():
    pixels = picture(32, 32) // 4 + 50
    for change in (augment._stretched, augment._equalized):
        found = change(pixels)
        assert (found.min((0, 1)) == 0).all() and (found.max((0, 1)) == 255).all()
        order = np.argsort(pixels[..., 0].reshape(-1), kind="stable")
        assert (np.diff(found[..., 0].reshape(-1)[order].astype(int)) >= 0).all()


def test_times_of_a_clip_lie_in_the_video():
    for draw in draws():
        times = clip_times(draw, 10.0, 8, 4.0, jitter=1.0)
        assert (times >= 0).all() and (times <= 10).all() and (np.diff(times) >= 0).all()
    np.testing.assert_allclose(clip_times(None, 10.0, 8, 4.0), 4 + (np.arange(8) + 0.5) / 4)
    np.testing.assert_allclose(clip_times(None, 1.0, 8, 4.0), (np.arange(8) + 0.5) / 8)  # a short video, in slow motion
    starts = [clip_times(draw, 10.0, 8, 4.0)[0] for draw in draws(200)]
    assert min(starts) < 0.5 and max(starts) > 7.5
    assert augment.window_start(None, 3.0, 1.0) == 1.0
    assert augment.window_start(None, 0.5, 1.0) == 0.0
    assert all(0 <= augment.window_start(draw, 3.0, 1.0) <= 2 for draw in draws())


def test_noise_has_the_power_asked_for():
    samples = 0.3 * tone(1.0)[:, 0]
    noisy = add_noise(samples, generator(0, 0, 0), (20.0, 20.0))
    assert noisy.dtype == np.float32
    assert 10 * np.log10(np.mean(samples**2) / np.mean((noisy - samples) ** 2)) == pytest.approx(20, abs=0.3)
    assert (add_noise(np.zeros(10, np.float32), generator(0, 0, 0)) == 0).all()
    assert add_noise(np.zeros(0, np.float32), generator(0, 0, 0)).shape == (0,)


def test_spec_augment_hides_stretches_and_bands():
    values = np.random.default_rng(0).normal(size=(100, 40)).astype(np.float32)
    hidden = []
    for draw in draws():
        found = spec_augment(values, draw, 2, 0.1, 1, 0.2)
        changed = found != values
        times, bands = changed.all(axis=1), changed.all(axis=0)
        assert (changed == (times[:, None] | bands)).all()
        assert times.sum() <= 20 and bands.sum() <= 8
        hidden.append(changed.mean())
    assert min(hidden) < 0.1 < 0.2 < max(hidden)
    assert (spec_augment(values, generator(0, 0, 0), 0, 0.1, 0, 0.2) == values).all()


@pytest.mark.parametrize(
    "changes",
    [
        {"crop_area": (0.0, 1.0)},
        {"crop_aspect": (2.0, 1.0)},
        {"flip": 1.5},
        {"hue": 0.7},
        {"contrast": -1.0},
        {"magnitude": 11.0},
        {"noise": (30.0, 10.0)},
        {"noise": (30.0,)},
        {"time_jitter": 2.0},
        {"band_masks": -1},
    ],
)
def test_options_out_of_range_are_refused(changes):
    with pytest.raises(ValueError, match=f"augment.{next(iter(changes))} is"):
        Augment(**changes)
