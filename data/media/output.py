"""Media that a model wrote, as files: PNG, GIF and WAV."""

from pathlib import Path

from data.errors import UserError
from data.files import storage
from data.media.signals.encoding import encode_animation, encode_image, encode_sound
from data.media.signals.mel import sound_of
from data.media.signals.shapes import RATE, AudioShape, Cut, ImageShape, Shape, VideoShape, frames_of

ENDINGS = {"image": ".png", "video": ".gif", "audio": ".wav"}


def check_output(kind: str, path: Path) -> None:
    """UserError for a name that says another kind of file, or a folder that is not there."""
    if path.suffix.lower() != ENDINGS[kind]:
        raise UserError(f"{path}: a written {kind} is a {ENDINGS[kind]} file", f"Name it {path.with_suffix(ENDINGS[kind])}.")
    if not path.parent.is_dir():
        raise UserError(f"{path.parent}: no such folder", "Make it first.")


def save_medium(shape: Shape, cut: Cut, path: Path) -> None:
    """Whole or not at all. A recording is made from its spectrogram, whose phases are found again."""
    storage.write_atomically(str(path), medium_bytes(shape, cut))


def medium_bytes(shape: Shape, cut: Cut) -> bytes:
    match shape:
        case ImageShape():
            return encode_image(frames_of(shape, cut)[0])
        case VideoShape():
            return encode_animation(frames_of(shape, cut), shape.fps)
        case AudioShape():
            return encode_sound(sound_of(cut.patches), RATE)
    raise ValueError(f"no shape {shape!r}")
