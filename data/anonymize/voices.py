"""Recordings in which a speaker is not known by the voice, and words still are.

Formants are moved by the McAdams coefficient (Patino et al. 2021, the baseline B2 of the VoicePrivacy challenge), the pitch by overlapped
pieces (WSOLA, Verhelst and Roelands 1993).
"""

import io
import math

import numpy as np

from data.anonymize.found import Found
from data.anonymize.surrogates import Key
from data.media.kinds import Undecodable
from data.media.signals.packages import load_soundfile, load_soxr
from data.media.signals.sounds import decode_audio, probe_audio

SOUNDS = {".wav": "WAV", ".flac": "FLAC", ".ogg": "OGG", ".mp3": "MP3"}
MCADAMS = (0.8, 0.92)
"""Range of the coefficient: angles of poles become their powers, so that at 1 nothing changes."""
CENTRE = 1900.0
"""Hertz of the angle that stays: formants below it rise, those above it fall."""
SEMITONES = (-2.0, -1.0)
"""Range of the shift of pitch, and of all frequencies with it. Down, since low formants rise: both up would cost words."""
_BLOCK_S = 20.0
_FADE_S = 0.05
_SHIFT_S = 0.01  # from one frame to the next, half of its length
_ORDER = 20  # of linear prediction
_FRAMES = 4096  # at once
_SILENT = 1e-8  # energy of a sample, below which a frame stays


def disguise(content: bytes, form: str, key: Key, name: str) -> tuple[bytes, Found]:
    """(the recording in another voice, in one channel, without what else the file says; how long it is). The voice is of key and name:
    files of one speaker get different ones. form: one of SOUNDS that is written. Undecodable for a recording that cannot be read."""
    soundfile = load_soundfile()
    try:
        rate = round(probe_audio(content).rate or 0)
        samples = decode_audio(content, rate)
    except Undecodable as error:
        raise Undecodable(f"is no recording, or a damaged one ({error})") from None
    written = io.BytesIO()
    changed = changed_voice(samples, rate, *drawn(key, name))
    try:
        soundfile.write(written, changed, rate, format=form)
    except (soundfile.SoundFileError, ValueError) as error:
        raise Undecodable(f"cannot be written again ({error})") from None
    return written.getvalue(), Found("VOICE", True, seconds=(0.0, round(len(samples) / rate, 2)))


def drawn(key: Key, name: str) -> tuple[float, float]:
    """(McAdams coefficient, semitones) of a file."""
    coefficient = MCADAMS[0] + (MCADAMS[1] - MCADAMS[0]) * key.share(f"formants\0{name}")
    return coefficient, SEMITONES[0] + (SEMITONES[1] - SEMITONES[0]) * key.share(f"pitch\0{name}")


def changed_voice(samples: np.ndarray, rate: int, coefficient: float, semitones: float) -> np.ndarray:
    """float32 [N] of float32 [N] in [-1, 1], as loud as before."""
    voice = Voice(rate, coefficient, semitones)
    return np.concatenate([voice.feed(samples), voice.finish()])


class Voice:
    """Another voice for sound that comes in pieces, cut anywhere: the same result as of the whole. Blocks are changed by themselves, and
    fade over into the next."""

    def __init__(self, rate: int, coefficient: float, semitones: float):
        self._rate, self._how = rate, (coefficient, semitones)
        self._block, self._fade = round(_BLOCK_S * rate), round(_FADE_S * rate)
        self._held: list[np.ndarray] = []
        self._count = 0
        self._tail = np.zeros(0, np.float32)

    def feed(self, samples: np.ndarray) -> np.ndarray:
        """What can be heard now, float32."""
        self._held.append(np.asarray(samples, np.float32))
        self._count += len(samples)
        ready = [np.zeros(0, np.float32)]
        while self._count >= self._block + self._fade:
            held = np.concatenate(self._held)
            ready.append(self._next(held[: self._block + self._fade], self._block))
            self._held = [held[self._block :]]
            self._count -= self._block
        return np.concatenate(ready)

    def finish(self) -> np.ndarray:
        """The rest."""
        held = np.concatenate([np.zeros(0, np.float32), *self._held])
        return self._next(held, len(held))

    def _next(self, samples: np.ndarray, size: int) -> np.ndarray:
        made = _changed(samples, self._rate, *self._how)
        fade = min(len(self._tail), len(made))
        rising = np.linspace(0, 1, fade, dtype=np.float32)
        made[:fade] = made[:fade] * rising + self._tail[:fade] * (1 - rising)
        self._tail = made[size:]
        return made[:size]


def _changed(samples: np.ndarray, rate: int, coefficient: float, semitones: float) -> np.ndarray:
    if not np.any(samples):
        return samples.copy()
    made = _mcadams(_pitched(samples.astype(np.float64), rate, 2.0 ** (semitones / 12)), rate, coefficient)
    made *= math.sqrt(np.square(samples, dtype=np.float64).mean() / max(np.square(made).mean(), 1e-20))
    return (made / max(1.0, float(np.abs(made).max()))).astype(np.float32)


# --------------------------------------------------------------------------------------------------------------------- pitch


def _pitched(samples: np.ndarray, rate: int, factor: float) -> np.ndarray:
    """As long as before, with all frequencies times a factor: stretched, then read so much faster."""
    stretched = stretch(samples, rate, factor)
    made = load_soxr().resample(stretched, factor * rate, rate)[: len(samples)]
    return np.pad(made, (0, len(samples) - len(made)), mode="edge" if len(made) else "constant")


def stretch(samples: np.ndarray, rate: int, factor: float) -> np.ndarray:
    """float64 [N * factor], with the same pitch: pieces that each go on where the one before would have, as well as nearby ones do."""
    half = max(round(0.015 * rate), 8)
    near = half // 2
    length = round(len(samples) * factor)
    count = length // half + 2
    padded = np.pad(samples, (half + near, 3 * half + near + 1))
    window = 0.5 - 0.5 * np.cos(np.pi * np.arange(2 * half) / half)
    made = np.zeros((count + 1) * half)
    begin = near
    for piece in range(count):
        if piece:
            following = padded[begin + half : begin + 3 * half]
            wanted = min(round(piece * half / factor), len(samples)) + near
            around = padded[wanted - near : wanted + near + 2 * half]
            likeness = np.correlate(around, following, "valid")
            begin = wanted - near + int(likeness.argmax())
            begin = min(begin, len(padded) - 3 * half)
        made[piece * half : (piece + 2) * half] += window * padded[begin : begin + 2 * half]
    return made[half : half + length]


# ------------------------------------------------------------------------------------------------------------------ formants


def _mcadams(samples: np.ndarray, rate: int, coefficient: float) -> np.ndarray:
    """Frame by frame: poles of linear prediction turned, the rest of the prediction kept (Patino et al. 2021, sec. 2)."""
    shift = max(round(_SHIFT_S * rate), 8)
    size = 2 * shift
    window = np.sqrt(0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size))  # its squares, half overlapped, come to 1
    count = -(-len(samples) // shift) + 1
    padded = np.pad(samples, (shift, (count + 1) * shift - len(samples) - shift))
    made = np.zeros(len(padded))
    frames = np.lib.stride_tricks.sliding_window_view(padded, size)[::shift]
    for first in range(0, count, _FRAMES):
        for place, frame in enumerate(turned(frames[first : first + _FRAMES] * window, rate, coefficient), first):
            made[place * shift : place * shift + size] += frame * window
    return made[shift : shift + len(samples)]


def turned(frames_FN: np.ndarray, rate: int, coefficient: float) -> np.ndarray:
    """Frames whose complex poles of linear prediction have the powers of their angles as angles, in units of CENTRE. float64 [F, N]."""
    from scipy.signal import lfilter

    made = frames_FN.copy()
    order = min(_ORDER, frames_FN.shape[1] // 4)
    loud = np.flatnonzero(np.square(frames_FN).mean(1) > _SILENT)
    if not len(loud):
        return made
    before_FP = prediction(frames_FN[loud], order)
    poles_FP = np.linalg.eigvals(_companions(before_FP))
    angles_FP, centre = np.angle(poles_FP), 2 * np.pi * CENTRE / rate
    new_FP = np.sign(angles_FP) * np.minimum(centre * (np.abs(angles_FP) / centre) ** coefficient, np.pi)
    new_FP = np.where(np.abs(poles_FP.imag) > 1e-12, new_FP, angles_FP)
    radii_FP = np.minimum(np.abs(poles_FP), 0.999)
    for place, before, poles in zip(loud.tolist(), before_FP, radii_FP * np.exp(1j * new_FP), strict=True):
        rest = lfilter(before, [1.0], frames_FN[place])
        made[place] = lfilter([1.0], np.poly(poles).real, rest)
    return made


def prediction(frames_FN: np.ndarray, order: int) -> np.ndarray:
    """1, a_1 ... a_order of linear prediction by the autocorrelation (Levinson 1947, Durbin 1960). float64 [F, order + 1]."""
    size = frames_FN.shape[1]
    spectrum = np.fft.rfft(frames_FN, 2 * size)
    correlation_FL = np.fft.irfft(np.square(np.abs(spectrum)))[:, : order + 1]
    correlation_FL[:, 0] *= 1 + 1e-9
    found = np.zeros((len(frames_FN), order + 1))
    found[:, 0] = 1.0
    error = correlation_FL[:, 0].copy()
    for step in range(1, order + 1):
        reflection = -np.einsum("fl,fl->f", found[:, :step], correlation_FL[:, step:0:-1]) / np.maximum(error, 1e-30)
        found[:, : step + 1] += reflection[:, None] * found[:, step::-1][:, : step + 1]
        error *= 1 - np.square(reflection)
    return found


def _companions(coefficients_FP: np.ndarray) -> np.ndarray:
    """Matrices whose eigenvalues are the roots."""
    order = coefficients_FP.shape[1] - 1
    made = np.zeros((len(coefficients_FP), order, order))
    made[:, 0] = -coefficients_FP[:, 1:]
    made[:, np.arange(1, order), np.arange(order - 1)] = 1.0
    return made
