"""Pictures without faces, number plates, and what cameras write beside them."""

import functools
import io
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from data.anonymize.found import LEAST, Box, Found, Hit, is_inside
from data.anonymize.plates import find_plates
from data.errors import UserError
from data.media.kinds import Undecodable
from data.media.signals.packages import describe, load_pillow

MOST_PIXELS = 100_000_000
"""A picture that claims more is a bomb, or has to be cut first."""
BLOCKS = 6
"""Squares that are left along the shorter side of what is covered: too few to tell a face, however they are sharpened."""
MARGIN = 0.15
"""Covered around what was found, as a share of its size."""
SMALLEST = 20
"""Pixels of the smallest face that is looked for."""
FORMATS = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".webp": "WEBP", ".gif": "GIF", ".bmp": "BMP", ".tif": "TIFF", ".tiff": "TIFF"}
DETECTORS = {
    "FACE": (("haarcascade_frontalface_default.xml", 5), ("haarcascade_frontalface_alt2.xml", 3), ("haarcascade_profileface.xml", 5)),
    "PLATE": (("haarcascade_russian_plate_number.xml", 4),),
}
"""Of each kind, OpenCV's cascades (Viola & Jones 2001), and how many neighbouring hits are not yet enough to believe one of them. That of
plates knows those of one country, seen straight: most are found by their letters (data/anonymize/plates.py)."""


def cover(content: bytes, formats: Sequence[str], *, first: bool = False) -> tuple[bytes, list[Found], str]:
    """(the picture, covered, without metadata and in its format; what was found; what else became of it, "" for nothing).

    formats: that it may have. first: of several frames the first is kept; else such a picture is refused, since what is in the others would
    stay. Undecodable for one that cannot be read.
    """
    from PIL import ImageOps

    pillow = load_pillow()
    try:
        image: Any = pillow.open(io.BytesIO(content), formats=tuple(formats))
        if image.width * image.height > MOST_PIXELS:
            raise Undecodable(f"{image.width} x {image.height} pixels, of which at most {MOST_PIXELS:,} are read")
        if getattr(image, "n_frames", 1) > 1 and not first:
            raise Undecodable(f"{image.n_frames} frames in one picture")
        image.load()
        written = "JPEG" if image.format == "MPO" else image.format  # a JPEG of several pictures
        image = ImageOps.exif_transpose(image)  # which way is up is in the metadata too
    except Undecodable:
        raise
    except Exception as error:  # a decoder fed with nonsense can raise anything
        raise Undecodable(f"is no {' or '.join(formats)} picture, or a damaged one ({describe(error)})") from None
    image, note = _of_eight_bits(image)
    if "transparency" in image.info:  # of a palette, whose hidden colours would be seen
        image = image.convert("RGBA")
    alpha = image.getchannel("A") if image.mode in ("RGBA", "LA") else None
    pixels = np.array(image.convert("RGB"))
    found = [(kind, hit) for kind, hits in detect_all(np.array(image.convert("L"))).items() for hit in worth_a_look(hits)]
    for _, hit in found:
        if hit.covered:
            cover_box(pixels, hit.box)
    made: Any = pillow.fromarray(pixels)
    if alpha is not None:
        made.putalpha(alpha)
    file = io.BytesIO()
    made.save(file, written, **({"quality": 92} if written in ("JPEG", "WEBP") else {}))
    return file.getvalue(), [Found(kind, hit.covered, hit.score, hit.box) for kind, hit in found], note


def _of_eight_bits(image: Any) -> tuple[Any, str]:
    """(the picture with at most eight bits for each colour, what became of it). Pillow would cut larger values off at 255.

    Grey of sixteen bits keeps its black and its white, and one level of 257 is left. Undecodable where it is not known what white is.
    """
    if image.mode not in ("F", "I") and not image.mode.startswith("I;16"):
        return image, ""
    grey = np.array(image)
    if image.mode == "F" or grey.min() < 0 or grey.max() > 0xFFFF:
        kind = "fractions" if image.mode == "F" else f"whole numbers from {grey.min()} to {grey.max()}"
        raise Undecodable(f"is a picture of {kind}, of which nobody knows how bright they are; it may have up to 16 bits for each colour")
    return load_pillow().fromarray((grey / 257).round().astype(np.uint8)), "16 bits of grey became 8"


def detect_all(grey: np.ndarray) -> dict[str, list[Hit]]:
    """What is seen of every kind in a picture of grey values, uint8 [H, W]."""
    return {kind: detect(grey, kind) for kind in DETECTORS}


def detect(grey: np.ndarray, kind: str) -> list[Hit]:
    """What is seen of a kind in a picture of grey values, uint8 [H, W]: hits that overlap joined, those with a score below LEAST left out.

    The score of a cascade is the share of the neighbouring hits that are needed.
    """
    hits: list[Hit] = []
    opencv = load_opencv()
    even = opencv.equalizeHist(grey)
    for name, too_few in DETECTORS[kind]:
        hits += _seen(even, name, too_few)
        if "profile" in name:  # which knows faces that look to the left
            for (x, y, width, height), score in _seen(np.ascontiguousarray(even[:, ::-1]), name, too_few):
                hits.append(Hit((grey.shape[1] - x - width, y, width, height), score))
    return joined(hits + find_plates(grey, opencv) if kind == "PLATE" else hits)


def _seen(grey: np.ndarray, name: str, too_few: int) -> list[Hit]:
    """Groups of at least two neighbouring hits are asked for, and counted: which of them are large enough does not depend on it."""
    boxes, counts = cascade(name).detectMultiScale2(grey, scaleFactor=1.1, minNeighbors=1, minSize=(SMALLEST, SMALLEST))
    scores = [round(int(count) / (too_few + 1), 2) for count in counts]
    places = ((int(x), int(y), int(width), int(height)) for x, y, width, height in boxes)
    return [Hit(place, score) for place, score in zip(places, scores, strict=True) if score >= LEAST]


def load_opencv() -> Any:
    """OpenCV. UserError where it is missing, or too new to have cascades."""
    try:
        import cv2

        if hasattr(cv2, "CascadeClassifier"):
            return cv2
    except ImportError:
        pass
    raise UserError("covering faces needs the package opencv-python-headless below 5", "pip install 'omnia[anonymize]'")


@functools.cache
def cascade(name: str) -> Any:
    """One of OpenCV's cascades. UserError where it is not there."""
    opencv = load_opencv()
    found = opencv.CascadeClassifier(opencv.data.haarcascades + name)
    if found.empty():
        raise UserError(f"OpenCV's {name} is missing", "Install it again: pip install 'omnia[anonymize]'")
    return found


def joined(hits: Iterable[Hit]) -> list[Hit]:
    """Those whose middles lie in another are one: the larger, or that which is covered. In an order that threads do not change."""
    found: list[Hit] = []
    for hit in sorted(hits, key=lambda hit: (not hit.covered, -hit.box[2] * hit.box[3], hit)):
        if not any(is_inside(hit.box, other.box) for other in found):
            found.append(hit)
    return found


def worth_a_look(hits: list[Hit]) -> list[Hit]:
    """What is covered, and the best of what is not: who looks at that one sees the others."""
    return [hit for hit in hits if hit.covered] + sorted((hit for hit in hits if not hit.covered), key=lambda hit: -hit.score)[:1]


def cover_box(pixels: np.ndarray, box: Box) -> None:
    """Replace a box of uint8 [H, W, 3], and a margin, by the means of a few squares."""
    x, y, width, height = box
    more = round(MARGIN * max(width, height))
    left, top = max(0, x - more), max(0, y - more)
    part = pixels[top : y + height + more, left : x + width + more]
    size = max(1, min(part.shape[:2]) // BLOCKS)
    rows, columns = (np.arange(0, length, size) for length in part.shape[:2])
    sums = np.add.reduceat(np.add.reduceat(part.astype(np.float64), rows, 0), columns, 1)
    heights, widths = np.diff(np.append(rows, part.shape[0])), np.diff(np.append(columns, part.shape[1]))
    means = sums / (heights[:, None, None] * widths[None, :, None])
    part[:] = np.repeat(np.repeat(means, heights, 0), widths, 1).round().astype(np.uint8)
