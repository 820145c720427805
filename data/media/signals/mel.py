"""Log-mel spectrograms of sound, by the recipe of Whisper (Radford et al. 2023, sec. 2.2), in NumPy."""

import functools

import numpy as np

from data.media.signals.products import product

RATE = 16_000
"""Samples a second."""
WINDOW = 400
"""Samples that one Fourier transform sees (25 ms)."""
HOP = 160
"""Samples from one frame to the next (10 ms)."""
BANDS = 80
"""Mel bands of a frame."""
_BLOCK = 64  # windows


def log_mel(samples: np.ndarray, bands: int = BANDS) -> np.ndarray:
    """float32 [len(samples) // 160, bands] of mono sound at 16 kHz, float in [-1, 1].

    Frames are centred on multiples of the hop, with the sound mirrored beyond its ends. Power below a hundred-millionth of the loudest
    band's is raised to that, so that values lie within an interval of 2: Whisper's (log10 + 4) / 4.
    """
    frames = len(samples) // HOP
    if frames == 0:
        return np.zeros((0, bands), np.float32)
    power_FS = _power(samples, frames)
    # Not a product of matrices: BLAS would take all cores for it, of which every process that decodes has but one; and a triangle is short.
    energy_MS = np.zeros((bands, frames))
    for band, (first, weights) in enumerate(_triangles(bands)):
        np.einsum("f,fs->s", weights, power_FS[first : first + len(weights)], out=energy_MS[band])
    logarithm = np.log10(np.maximum(energy_MS, 1e-10))
    logarithm = np.maximum(logarithm, logarithm.max() - 8.0)
    return ((logarithm + 4.0) / 4.0).T.astype(np.float32, order="C")


def sound_of(values_SM: np.ndarray, iterations: int = 60) -> np.ndarray:
    """float32 [S * 160]: a sound whose log-mel spectrogram is near the one given; as loud as 0.5 at most.

    Magnitudes of the frequencies come from the bands by non-negative least squares, phases by the iteration of Griffin and Lim (1984), with
    the momentum of Perraudin et al. (2013).
    """
    if not len(values_SM):
        return np.zeros(0, np.float32)
    power_SM = 10.0 ** (np.asarray(values_SM, np.float64) * 4.0 - 4.0)
    filters_MF = mel_filters(values_SM.shape[1])
    power_SF = product(power_SM, _inverse_filters(values_SM.shape[1]).T)
    overlaps_FF, wanted_SF = product(filters_MF.T, filters_MF), product(power_SM, filters_MF)
    for _ in range(50):  # multiplicative updates (Lee and Seung 2000) keep it from being negative
        power_SF = np.maximum(power_SF, 1e-10)
        power_SF *= wanted_SF / np.maximum(product(power_SF, overlaps_FF), 1e-10)
    magnitude_SF = np.sqrt(power_SF)
    phases = np.exp(2j * np.pi * np.random.Generator(np.random.Philox(0)).random(magnitude_SF.shape))
    before = np.zeros_like(phases)
    for _ in range(iterations):
        found = _transform(_overlapped(magnitude_SF * phases))[: len(magnitude_SF)]
        moved = found + 0.99 * (found - before)
        phases, before = moved / np.maximum(np.abs(moved), 1e-12), found
    sound = _overlapped(magnitude_SF * phases)
    return (sound * (0.5 / max(np.abs(sound).max(), 0.5))).astype(np.float32)


@functools.cache
def _hann() -> np.ndarray:
    return 0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(WINDOW) / WINDOW)


def _windows(samples: np.ndarray) -> np.ndarray:
    """Those around the multiples of the hop, [S + 1, 400] for S hops: a view."""
    half = WINDOW // 2
    if len(samples) > half:  # what np.pad does, without several copies
        padded = np.concatenate([samples[half:0:-1], samples, samples[-2 : -2 - half : -1]], dtype=np.float64)
    else:
        padded = np.pad(np.asarray(samples, np.float64), half, mode="reflect")
    return np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::HOP]


def _transform(samples: np.ndarray) -> np.ndarray:
    """Of those windows, complex [S + 1, 201]."""
    return np.fft.rfft(_windows(samples) * _hann(), axis=-1)


def _power(samples: np.ndarray, frames: int) -> np.ndarray:
    """Squares of the transform of the first windows, [201, frames]; by blocks, which stay in the cache."""
    windows, hann, power_FS = _windows(samples), _hann(), np.empty((WINDOW // 2 + 1, frames))
    for first in range(0, frames, _BLOCK):
        inside = slice(first, min(first + _BLOCK, frames))
        transform = np.fft.rfft(windows[inside] * hann, axis=-1)
        power_FS[:, inside] = (np.square(transform.real) + np.square(transform.imag)).T
    return power_FS


def _overlapped(transform_SF: np.ndarray) -> np.ndarray:
    """The sound [S * 160] whose windows come nearest to a transform's in squares (Griffin and Lim 1984, eq. 6)."""
    windows, hann = np.fft.irfft(transform_SF, WINDOW, axis=-1), _hann()
    total, weight = np.zeros((2, (len(windows) - 1) * HOP + WINDOW))
    for number, window in enumerate(windows):
        inside = slice(number * HOP, number * HOP + WINDOW)
        total[inside] += window * hann
        weight[inside] += hann**2
    whole = total / np.maximum(weight, 1e-3)
    return np.pad(whole, (0, WINDOW))[WINDOW // 2 :][: len(windows) * HOP]


@functools.cache
def mel_filters(bands: int = BANDS) -> np.ndarray:
    """Weights [bands, 201] of the frequencies of a transform: triangles whose corners are evenly spaced in mels, from 0 to 8 kHz.

    Each is as high as makes its area over frequency one (Slaney 1998): 2 over its width in Hz.
    """
    corners = _hertz(np.linspace(0.0, _mels(RATE / 2), bands + 2))
    left, centre, right = corners[:-2, None], corners[1:-1, None], corners[2:, None]
    frequencies = np.fft.rfftfreq(WINDOW, 1.0 / RATE)
    rising, falling = (frequencies - left) / (centre - left), (right - frequencies) / (right - centre)
    return np.maximum(0.0, np.minimum(rising, falling)) * 2.0 / (right - left)


@functools.cache
def _inverse_filters(bands: int) -> np.ndarray:
    """Their pseudo-inverse, [201, bands]."""
    return np.linalg.pinv(mel_filters(bands))


@functools.cache
def _triangles(bands: int) -> list[tuple[int, np.ndarray]]:
    """(first frequency, weights) of each filter, without the zeros around it."""
    inside = [np.flatnonzero(row) for row in mel_filters(bands)]  # none, where bands lie closer than frequencies
    return [(int(at[0]), row[at]) if len(at) else (0, row[:0]) for at, row in zip(inside, mel_filters(bands), strict=True)]


# Slaney's mels: 3 for each 200 Hz up to 1 kHz; from there, 27 for each factor of 6.4.
_BEND_HERTZ, _BEND_MELS, _MELS_PER_LOG = 1000.0, 15.0, 27.0 / np.log(6.4)


def _mels(hertz):
    return np.where(hertz < _BEND_HERTZ, hertz * 3.0 / 200.0, _BEND_MELS + _MELS_PER_LOG * np.log(np.maximum(hertz, 1.0) / _BEND_HERTZ))


def _hertz(mels):
    return np.where(mels < _BEND_MELS, mels * 200.0 / 3.0, _BEND_HERTZ * np.exp((mels - _BEND_MELS) / _MELS_PER_LOG))
