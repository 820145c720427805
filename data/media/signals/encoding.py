"""Arrays into encoded files: images, animations, sound."""

import io

import numpy as np

from data.media.signals.packages import load_pillow, load_soundfile


def encode_image(pixels_HWC: np.ndarray, form: str = "PNG", **options) -> bytes:
    """uint8 [H, W, 3] as a file: PNG, JPEG, WEBP."""
    file = io.BytesIO()
    load_pillow().fromarray(pixels_HWC).save(file, form, **options)
    return file.getvalue()


def encode_animation(frames_FHWC: np.ndarray, fps: float) -> bytes:
    """uint8 [F, H, W, 3] as a GIF that begins again at its end."""
    first, *rest = (load_pillow().fromarray(frame) for frame in frames_FHWC)
    file = io.BytesIO()
    first.save(file, "GIF", save_all=True, append_images=rest, duration=round(1000 / fps), loop=0)
    return file.getvalue()


def encode_sound(samples_N: np.ndarray, rate: int) -> bytes:
    """A WAV file of one channel, 16 bits a sample."""
    buffer = io.BytesIO()
    load_soundfile().write(buffer, np.clip(samples_N, -1.0, 1.0), rate, format="WAV", subtype="PCM_16")
    return buffer.getvalue()
