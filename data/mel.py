"""Log-mel spectrograms of sound, by the recipe of Whisper (Radford et al. 2023, sec. 2.2), in NumPy."""

import functools

import numpy as np

RATE = 16_000
"""Samples a second."""
WINDOW = 400
"""Samples that one Fourier transform sees (25 ms)."""
HOP = 160
"""Samples from one frame to the next (10 ms)."""
BANDS = 80
"""Mel bands of a frame."""


def log_mel(samples: np.ndarray, bands: int = BANDS) -> np.ndarray:
    """float32 [len(samples) // 160, bands] of mono sound at 16 kHz, float in [-1, 1].

    Frames are centred on multiples of the hop, with the sound mirrored beyond its ends. Power below a hundred-millionth of the loudest
    band's is raised to that, so that values lie within an interval of 2: Whisper's (log10 + 4) / 4.
    """
    frames = len(samples) // HOP
    if frames == 0:
        return np.zeros((0, bands), np.float32)
    padded = np.pad(np.asarray(samples, np.float64), WINDOW // 2, mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::HOP][:frames]
    hann = 0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(WINDOW) / WINDOW)
    power = np.square(np.abs(np.fft.rfft(windows * hann, axis=-1)))
    logarithm = np.log10(np.maximum(power @ mel_filters(bands).T, 1e-10))
    logarithm = np.maximum(logarithm, logarithm.max() - 8.0)
    return ((logarithm + 4.0) / 4.0).astype(np.float32)


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


# Slaney's mels: 3 for each 200 Hz up to 1 kHz; from there, 27 for each factor of 6.4.
_BEND_HERTZ, _BEND_MELS, _MELS_PER_LOG = 1000.0, 15.0, 27.0 / np.log(6.4)


def _mels(hertz):
    return np.where(hertz < _BEND_HERTZ, hertz * 3.0 / 200.0, _BEND_MELS + _MELS_PER_LOG * np.log(np.maximum(hertz, 1.0) / _BEND_HERTZ))


def _hertz(mels):
    return np.where(mels < _BEND_MELS, mels * 200.0 / 3.0, _BEND_HERTZ * np.exp((mels - _BEND_MELS) / _MELS_PER_LOG))
