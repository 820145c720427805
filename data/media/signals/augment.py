"""Augmentation of decoded media: pure functions of (array, generator), so that a record's every chance follows from its generator.

Images are uint8 [H, W, 3], clips uint8 [F, H, W, 3] whose frames share every chance, sounds float32 [n], spectrograms float32 [S, M].
"""

import math

import numpy as np

from data.media.signals.augment_config import Augment


def generator(seed: int, row: int, example: int, purpose: int = 0) -> np.random.Generator:
    """The generator of one example: the same wherever and whenever it is made, and independent of all others.

    row: what the example is numbered in (a step, a row of the stream). Philox is keyed by seed and row; its counter begins at
    (example, purpose) in the upper words, which leaves 2**128 blocks to each.
    """
    key = np.array([seed, row], np.int64).view(np.uint64)
    counter = np.array([0, 0, example, purpose], np.int64).view(np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))


def crop_box(config: Augment, draw: np.random.Generator) -> tuple[float, float, float, float] | None:
    """The cutout of a picture to decode, as decode_image takes it; None for all."""
    return None if config.crop_area == (1.0, 1.0) else random_box(draw, config.crop_area, config.crop_aspect)


def augment_pixels(config: Augment, pixels: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """What is done to a picture, or alike to all frames of a clip, after the crop."""
    if config.flip:
        pixels = flip(pixels, draw, config.flip)
    if config.brightness or config.contrast or config.saturation or config.hue:
        pixels = colour_jitter(pixels, draw, config.brightness, config.contrast, config.saturation, config.hue)
    if config.randaugment:
        pixels = randaugment(pixels, draw, config.randaugment, config.magnitude)
    return cutout(pixels, draw, config.cutout) if config.cutout else pixels


def augment_spectrogram(config: Augment, values_SM: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    if not config.time_masks and not config.band_masks:
        return values_SM
    return spec_augment(values_SM, draw, config.time_masks, config.time_share, config.band_masks, config.band_share)


# --------------------------------------------------------------------------------------------------------------------- images


def random_box(
    draw: np.random.Generator, area: tuple[float, float] = (0.08, 1.0), aspect: tuple[float, float] = (3 / 4, 4 / 3)
) -> tuple[float, float, float, float]:
    """(top, left, bottom, right) as fractions of the picture, covering a share of its area at an aspect against its own."""
    share = draw.uniform(*area)
    stretch = math.exp(draw.uniform(math.log(aspect[0]), math.log(aspect[1])))
    stretch = min(max(stretch, share), 1 / share)  # or it would not fit
    height, width = math.sqrt(share / stretch), math.sqrt(share * stretch)
    top, left = draw.uniform(0, 1 - min(height, 1)), draw.uniform(0, 1 - min(width, 1))
    return top, left, min(top + height, 1.0), min(left + width, 1.0)


def flip(pixels: np.ndarray, draw: np.random.Generator, chance: float = 0.5) -> np.ndarray:
    return np.ascontiguousarray(pixels[..., ::-1, :]) if draw.random() < chance else pixels


def colour_jitter(
    pixels: np.ndarray, draw: np.random.Generator, brightness: float = 0.4, contrast: float = 0.4, saturation: float = 0.4, hue: float = 0.1
) -> np.ndarray:
    """Brightness, contrast, saturation and hue, changed in a random order."""
    factors = {
        _brightness: 1 + draw.uniform(-brightness, brightness),
        _contrast: 1 + draw.uniform(-contrast, contrast),
        _saturation: 1 + draw.uniform(-saturation, saturation),
        _hue: draw.uniform(-hue, hue),
    }
    neutral = {_brightness: 1.0, _contrast: 1.0, _saturation: 1.0, _hue: 0.0}
    values = pixels.astype(np.float32)
    for place in draw.permutation(len(factors)):
        change, factor = list(factors.items())[place]
        if factor != neutral[change]:
            values = change(values, factor)
    return _rounded(values)


def cutout(pixels: np.ndarray, draw: np.random.Generator, share: float = 0.5) -> np.ndarray:
    """A grey square whose middle lies anywhere; some of it may lie outside."""
    height, width = pixels.shape[-3:-1]
    side = round(share * min(height, width))
    top, left = (int(draw.integers(0, length)) - side // 2 for length in (height, width))
    pixels = pixels.copy()
    pixels[..., max(top, 0) : max(top + side, 0), max(left, 0) : max(left + side, 0), :] = 128
    return pixels


def randaugment(pixels: np.ndarray, draw: np.random.Generator, count: int = 2, magnitude: float = 9.0) -> np.ndarray:
    """`count` operations, each any of 13 with equal chance, all at the same magnitude (0 to 10) in a random direction."""
    strength = magnitude / 10
    for _ in range(count):
        sign = 1.0 if draw.random() < 0.5 else -1.0
        height, width = pixels.shape[-3:-1]
        match draw.integers(13):
            case 0:
                pass
            case 1:
                pixels = _stretched(pixels)
            case 2:
                pixels = _equalized(pixels)
            case 3:
                angle = math.radians(30 * strength * sign)
                pixels = _moved(pixels, [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]], (0, 0))
            case 4:
                bits = round(4 * strength)
                pixels = pixels >> np.uint8(bits) << np.uint8(bits)
            case 5:
                pixels = np.where(pixels < 256 * (1 - strength), pixels, 255 - pixels)
            case 6:
                pixels = _rounded(_saturation(pixels.astype(np.float32), 1 + 0.9 * strength * sign))
            case 7:
                pixels = _rounded(_contrast(pixels.astype(np.float32), 1 + 0.9 * strength * sign))
            case 8:
                pixels = _rounded(_brightness(pixels.astype(np.float32), 1 + 0.9 * strength * sign))
            case 9:
                pixels = _moved(pixels, [[1, 0.3 * strength * sign], [0, 1]], (0, 0))
            case 10:
                pixels = _moved(pixels, [[1, 0], [0.3 * strength * sign, 1]], (0, 0))
            case 11:
                pixels = _moved(pixels, [[1, 0], [0, 1]], (0.45 * strength * sign * height, 0))
            case 12:
                pixels = _moved(pixels, [[1, 0], [0, 1]], (0, 0.45 * strength * sign * width))
    return pixels


# Not products of matrices, for which BLAS would take all cores: processes that decode have one each.


def _grey(values):
    return _mixed(values, (0.299, 0.587, 0.114))


def _mixed(values, weights):
    """float32: a sum of the three colours of each pixel."""
    red, green, blue = map(np.float32, weights)
    mixed = values[..., 0] * red
    mixed += values[..., 1] * green
    mixed += values[..., 2] * blue
    return mixed


def _brightness(values, factor):
    return np.clip(values * np.float32(factor), 0, 255)


def _contrast(values, factor):
    mean = _grey(values).mean()
    return np.clip((values - mean) * np.float32(factor) + mean, 0, 255)


def _saturation(values, factor):
    grey = _grey(values)[..., None]
    return np.clip((values - grey) * np.float32(factor) + grey, 0, 255)


def _hue(values, turns):
    """A turn of the plane of chrominance (YIQ), which keeps brightness."""
    cosine, sine = math.cos(2 * math.pi * turns), math.sin(2 * math.pi * turns)
    to_yiq = np.array([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
    turn = np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]])
    mixed = [_mixed(values, weights) for weights in np.linalg.inv(to_yiq) @ turn @ to_yiq]
    return np.clip(np.stack(mixed, axis=-1), 0, 255)


def _rounded(values):
    return (values + 0.5).astype(np.uint8)  # which are 0 to 255


def _stretched(pixels):
    """Each channel from its darkest and brightest to 0 and 255."""
    axes = tuple(range(pixels.ndim - 1))
    low, high = pixels.min(axes).astype(np.float32), pixels.max(axes).astype(np.float32)
    scale = np.where(high > low, 255 / np.maximum(high - low, 1), 1)
    return _rounded(np.clip((pixels - np.where(high > low, low, 0)) * scale, 0, 255))


def _equalized(pixels):
    """Each channel so that its values are spread evenly."""
    table = np.empty((3, 256), np.uint8)
    for channel in range(3):
        counts = np.bincount(pixels[..., channel].reshape(-1), minlength=256)
        before = np.cumsum(counts) - counts
        most = max(int(before[pixels[..., channel].max()]), 1)
        table[channel] = np.clip(np.round(before * 255 / most), 0, 255) if (counts > 0).sum() > 1 else np.arange(256)
    return np.stack([table[channel][pixels[..., channel]] for channel in range(3)], axis=-1)


def _moved(pixels, matrix, shift):
    """Around the middle, the pixel at (y, x) comes from matrix (y, x) + shift, the nearest; grey where nothing is."""
    height, width = pixels.shape[-3:-1]
    middle = np.array([(height - 1) / 2, (width - 1) / 2]).reshape(2, 1, 1)
    places = np.stack(np.meshgrid(np.arange(height), np.arange(width), indexing="ij")) - middle
    sources = np.einsum("ij,jhw->ihw", np.asarray(matrix, float), places) + middle + np.asarray(shift, float).reshape(2, 1, 1)
    y, x = np.round(sources).astype(np.int64)
    inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    found = pixels[..., np.clip(y, 0, height - 1), np.clip(x, 0, width - 1), :]
    return np.where(inside[..., None], found, np.uint8(128))


# --------------------------------------------------------------------------------------------------------------------- videos


def clip_times(draw: np.random.Generator | None, duration_s: float, frames: int, rate: float, jitter: float = 0.0) -> np.ndarray:
    """Seconds of the frames of a clip: `frames` of them at `rate` a second, from a random start; jitter: share of a step by which
    each is moved. Without a generator from the middle of the video, and unmoved. A shorter video is shown at a lower rate.
    """
    step = min(1 / rate, duration_s / frames)
    spare = max(duration_s - frames * step, 0.0)
    start = spare / 2 if draw is None else draw.uniform(0, spare) if spare else 0.0
    moves = np.zeros(frames) if draw is None or not jitter else draw.uniform(-0.5, 0.5, frames) * jitter
    return start + (np.arange(frames) + 0.5 + moves) * step


# --------------------------------------------------------------------------------------------------------------------- sounds


def window_start(draw: np.random.Generator | None, duration_s: float, seconds: float) -> float:
    """Where a window of a recording begins: anywhere that it fits, or without a generator so that it is in the middle."""
    spare = max(duration_s - seconds, 0.0)
    return spare / 2 if draw is None else draw.uniform(0, spare) if spare else 0.0


def add_noise(samples: np.ndarray, draw: np.random.Generator, decibels: tuple[float, float] = (10.0, 30.0)) -> np.ndarray:
    """White noise, at a signal-to-noise ratio drawn from the range; silence stays silent."""
    power = float(np.mean(np.square(samples, dtype=np.float64))) if samples.size else 0.0
    deviation = math.sqrt(power / 10 ** (draw.uniform(*decibels) / 10))
    return np.clip(samples + np.float32(deviation) * draw.standard_normal(samples.shape, np.float32), -1, 1)


def spec_augment(
    values_SM: np.ndarray, draw: np.random.Generator, times: int = 2, time_share: float = 0.1, bands: int = 2, band_share: float = 0.2
) -> np.ndarray:
    """SpecAugment (Park et al. 2019) without its warping: stretches of time, and bands of frequency, at the mean of the spectrogram.

    Each is of any length up to its share of the whole.
    """
    values_SM = values_SM.copy()
    mean = values_SM.mean() if values_SM.size else 0
    for count, share, axis in ((times, time_share, 0), (bands, band_share, 1)):
        length = values_SM.shape[axis]
        for _ in range(count):
            size = int(draw.integers(0, int(share * length) + 1))
            start = int(draw.integers(0, length - size + 1))
            values_SM[(slice(None),) * axis + (slice(start, start + size),)] = mean
    return values_SM
