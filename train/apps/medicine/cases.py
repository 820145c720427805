"""What a case is made of: a text, values of a table, each of which may be missing, and an image; and the numbers that a head reads."""

import base64
import binascii
import functools
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from data.errors import UserError
from data.media.kinds import Undecodable
from data.media.signals.images import decode_image
from data.records.record import Record, is_number, read_content

SOURCES = ("text", "table", "image")
PIXELS = 32
"""Rows and columns of an image as it is read, in grey."""
WAVES = 8
"""Of the cosine transform of an image, frequencies whose rows and columns add up to less: the coarse shapes, 36 numbers."""
FARTHEST = 5.0
"""Standard deviations from the mean, beyond which a number counts as so far."""
LARGEST = 1e100
"""Size of a number that is reckoned with; larger ones, whose squares would be infinite, count as this."""
MOST_BYTES = 1 << 25
"""Of an image, as it is written."""
MOST_PIXELS = 1 << 24
TEMPERATURE = re.compile(r"(?<![a-z])temp(?![a-z])|temperature", re.I)
INLINE = re.compile(r"data:image/[\w.+-]{1,40};base64,")


class Value(NamedTuple):
    """A column of the table: a number between `low` and `high`, or one of `names`."""

    name: str
    low: float = -math.inf
    high: float = math.inf
    names: tuple[str, ...] = ()

    @property
    def width(self) -> int:
        """Numbers that a head reads of it: itself, or a mark of each name, and a mark that it is missing."""
        return (len(self.names) or 1) + 1


class Case(NamedTuple):
    """Beside the text. values: of each column the number, the place of the name, or None. image: uint8 [PIXELS, PIXELS], or None.
    remarks: what was given and not believed. judged: the reward of the answer that is the label, and the probability with which it was
    given; None where the label is simply true."""

    values: tuple[float | None, ...]
    image: np.ndarray | None
    remarks: tuple[str, ...] = ()
    judged: tuple[float, float] | None = None


def parse_value(written: str) -> Value:
    """`age`, `age: 0..120` or `sex: F|M`. ValueError for anything else."""
    name, colon, said = (part.strip() for part in written.partition(":"))
    if not name or (colon and not said):
        raise ValueError(f"data.values {written!r}: write NAME, NAME: LOW..HIGH or NAME: ONE|OTHER")
    if "|" in said:
        names = tuple(one.strip() for one in said.split("|"))
        if len(set(names)) < len(names) or "" in names:
            raise ValueError(f"data.values {written!r}: a name is empty, or there twice")
        return Value(name, names=names)
    if not said:
        return Value(name)
    try:
        low, high = (float(one) for one in said.split(".."))
    except ValueError:
        raise ValueError(f"data.values {written!r}: {said!r} is no LOW..HIGH") from None
    if not -LARGEST <= low < high <= LARGEST:
        raise ValueError(f"data.values {written!r}: the first number must be below the second, and none above {LARGEST:g}")
    return Value(name, low, high)


def read_value(value: Value, given: Any) -> tuple[float | None, str]:
    """(the number, or the place of the name; None where it is missing or cannot be believed; what is said of that, else "")."""
    if given is None or (isinstance(given, str) and not given.strip()):
        return None, ""
    if value.names:
        written = str(given).strip()
        return (float(value.names.index(written)), "") if written in value.names else (None, f"{value.name} is {written[:40]!r}")
    number: Any = given
    if isinstance(given, str):
        try:
            number = float(given)
        except ValueError:
            return None, f"{value.name} is {given.strip()[:40]!r}, which is no number"
    elif isinstance(given, bool):
        number = float(given)
    if not is_number(number):
        return None, f"{value.name} is no number"
    if value.low <= number <= value.high:
        return float(number), ""
    said = f"{value.name} is {number:g}, which is not between {value.low:g} and {value.high:g}"
    celsius = (number - 32) / 1.8
    if TEMPERATURE.search(value.name) and value.low <= celsius <= value.high:
        said += f"; taken for Fahrenheit it is {celsius:.1f} in Celsius"
    return None, said


def read_image(record: Record, name: str, folder: str) -> np.ndarray | None:
    """uint8 [PIXELS, PIXELS], grey. The column is a path below the folder, by default that of the row's file, or data:image/...;base64. A
    row of no file, such as one of a request, has no folder by default. None where there is no image. UserError for what cannot be read."""
    given = record.get(name)
    if given is None or given == "":
        return None
    if not isinstance(given, str):
        raise UserError(f"{record.where}: {name} is no path of an image", "Give a path, relative to the file.")
    if found := INLINE.match(given):
        if len(given) - found.end() > MOST_BYTES // 3 * 4:
            raise _too_large(f"{record.where}: {name}")
        try:
            content = base64.b64decode(given[found.end() :], validate=True)
        except (binascii.Error, ValueError):
            raise UserError(f"{record.where}: {name} is no base64", "Give a path, or data:image/png;base64,...") from None
    else:
        content = _content_below(given, folder, record.where, name)
    try:
        pixels = decode_image(content, size=(PIXELS, PIXELS), max_pixels=MOST_PIXELS)
    except Undecodable as error:
        raise UserError(f"{record.where}: {name}: {error}", "Give a JPEG, PNG, WebP, GIF or BMP.") from None
    return np.round(pixels @ np.array([0.299, 0.587, 0.114])).astype(np.uint8)


def _content_below(given: str, folder: str, where: str, name: str) -> bytes:
    """The bytes of a file below the folder, or below that of the file that the row is of."""
    source = Path(where.rpartition(": ")[0])
    if not folder and not source.is_file():
        raise UserError(
            f"{where}: {name} is a path, and the row is of no file", "Give data:image/png;base64,..., or name a folder: --data.images."
        )
    below = Path(folder or source.parent)
    # A path from a request may not lead to other files of the machine, also not by a link, nor to what is no file and may never end.
    try:
        there = (below / given).resolve()
        inside = there.is_relative_to(below.resolve()) and not Path(given).is_absolute() and ".." not in Path(given).parts
        is_file = inside and there.is_file()
        size = there.stat().st_size if is_file else 0
    except (OSError, ValueError, RuntimeError):  # no name of a file; links in a circle
        inside, is_file, size = True, False, 0
    if not inside:
        raise UserError(f"{where}: {name} {given[:80]!r} leads out of its folder", "Give a path below the folder of the file.")
    if not is_file:
        raise UserError(f"{where}: {name} {given[:80]!r} is no file", "Give an image that can be read.")
    if size > MOST_BYTES:
        raise _too_large(f"{where}: {name}")
    try:
        return read_content(str(there))
    except UserError as error:
        raise UserError(f"{where}: {name}: {str(error).partition(chr(10))[0]}", "Give an image that can be read.") from None


def _too_large(what: str) -> UserError:
    return UserError(f"{what} has more than {MOST_BYTES >> 20} MiB", "Give a smaller image.")


@functools.cache
def _cosines() -> tuple[np.ndarray, np.ndarray]:
    """(the orthonormal cosines [WAVES, PIXELS], which pairs of frequencies count, bool [WAVES, WAVES])."""
    frequency_W, place_P = np.arange(WAVES)[:, None], np.arange(PIXELS)[None] + 0.5
    cosines_WP = np.cos(np.pi * frequency_W * place_P / PIXELS) * np.sqrt(2 / PIXELS)
    cosines_WP[0] /= np.sqrt(2)
    return cosines_WP, frequency_W + np.arange(WAVES)[None] < WAVES


def waves_of(image: np.ndarray) -> np.ndarray:
    """float64 [36]: the coarse waves of an image, by the cosine transform (Ahmed et al. 1974) of its grey from -0.5 to 0.5."""
    cosines_WP, kept = _cosines()
    return (cosines_WP @ (image / 255.0 - 0.5) @ cosines_WP.T)[kept]


def image_of(waves: np.ndarray) -> np.ndarray:
    """uint8 [PIXELS, PIXELS]: the image that has these waves and no finer ones."""
    cosines_WP, kept = _cosines()
    all_waves = np.zeros((WAVES, WAVES))
    all_waves[kept] = waves
    return np.clip((cosines_WP.T @ all_waves @ cosines_WP + 0.5) * 255, 0, 255).round().astype(np.uint8)


TURNED: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "inverted": lambda image: 255 - image,
    "upside down": lambda image: image[::-1],
    "turned to its left": lambda image: np.rot90(image, 3),
    "turned to its right": np.rot90,
}
"""What an image may have become before it came here, and what takes that back."""


class Scales(NamedTuple):
    """What numbers are standardised by: of each value that is a number, and of each wave of an image, a mean and a deviation."""

    values_V2: np.ndarray
    waves_W2: np.ndarray

    @classmethod
    def usual(cls, values: tuple[Value, ...]) -> "Scales":
        """Of what is known without looking at any case: the ranges of values, and that images have less of finer waves."""
        ranges = [
            ((one.low + one.high) / 2, (one.high - one.low) / 4) if one.high < math.inf else (0.0, 1.0) for one in values if not one.names
        ]
        frequency_W = np.add.outer(np.arange(WAVES), np.arange(WAVES))[_cosines()[1]]
        deviations = 0.15 * PIXELS / (1.0 + frequency_W)
        return cls(np.array(ranges).reshape(-1, 2), np.stack([np.zeros_like(deviations), deviations], -1))

    @classmethod
    def measured(cls, values: tuple[Value, ...], cases: list[Case]) -> "Scales":
        """Of the cases to learn from."""
        numbers = [[case.values[place] for case in cases] for place, value in enumerate(values) if not value.names]
        waves = np.array([waves_of(case.image) for case in cases if case.image is not None])
        waves_W2 = np.stack([waves.mean(0), waves.std(0)], -1) if len(waves) else cls.usual(values).waves_W2
        found = [np.clip([number for number in column if number is not None], -LARGEST, LARGEST) for column in numbers]
        values_V2 = np.array([(np.mean(column), np.std(column)) if len(column) else (0.0, 1.0) for column in found]).reshape(-1, 2)
        for pairs in (values_V2, waves_W2):
            pairs[pairs[:, 1] < 1e-9, 1] = 1.0
        return cls(values_V2, waves_W2)

    def flat(self) -> tuple[float, ...]:
        return tuple(float(f"{one:.7g}") for one in np.concatenate([self.values_V2.reshape(-1), self.waves_W2.reshape(-1)]))

    @classmethod
    def of(cls, flat: tuple[float, ...], values: tuple[Value, ...]) -> "Scales":
        count = 2 * sum(not value.names for value in values)
        pairs = np.array(flat, np.float64)
        return cls(pairs[:count].reshape(-1, 2), pairs[count:].reshape(-1, 2))

    def table(self, values: tuple[Value, ...], case: Case) -> np.ndarray:
        """float32, of each value its numbers and its mark."""
        found: list[float] = []
        pairs = iter(self.values_V2)
        for value, given in zip(values, case.values, strict=True):
            if value.names:
                found += [float(given == place) for place in range(len(value.names))]
            else:
                mean, deviation = next(pairs)
                near = 0.0 if given is None else (np.clip(given, -LARGEST, LARGEST) - mean) / deviation
                found.append(float(np.clip(near, -FARTHEST, FARTHEST)))
            found.append(float(given is None))
        return np.array(found, np.float32)

    def waves(self, image: np.ndarray) -> np.ndarray:
        """float32 [36]."""
        found = (waves_of(image) - self.waves_W2[:, 0]) / self.waves_W2[:, 1]
        return np.clip(found, -FARTHEST, FARTHEST).astype(np.float32)

    def oddness(self, image: np.ndarray) -> float:
        """How far an image lies from those that these are the scales of: the root of the mean square of its waves, about 1 for one of
        them."""
        return float(np.sqrt(np.square((waves_of(image) - self.waves_W2[:, 0]) / self.waves_W2[:, 1]).mean()))

    def turned(self, image: np.ndarray, known: Sequence[str] = tuple(TURNED)) -> str:
        """Which of TURNED, taken back, would bring an image nearest to those that these are the scales of; "" where it is nearest as it
        is."""
        away = {name: self.oddness(TURNED[name](image)) for name in known}
        nearest = min(away, key=lambda name: away[name], default="")
        return nearest if nearest and away[nearest] < self.oddness(image) else ""
