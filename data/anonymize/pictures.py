"""Pictures without faces, number plates, and what cameras write beside them."""

import functools
import io
from typing import Any

import numpy as np

from data.errors import UserError

MOST_PIXELS = 100_000_000
"""A picture that claims more is a bomb, or has to be cut first."""
BLOCKS = 6
"""Squares that are left along the shorter side of what is covered: too few to tell a face, however they are sharpened."""
MARGIN = 0.15
"""Covered around what was found, as a share of its size."""
SMALLEST = 20
"""Pixels of the smallest face that is looked for."""
FORMATS = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".webp": "WEBP", ".bmp": "BMP", ".tif": "TIFF", ".tiff": "TIFF"}
DETECTORS = {
    "FACE": (("haarcascade_frontalface_default.xml", 5), ("haarcascade_frontalface_alt2.xml", 3), ("haarcascade_profileface.xml", 5)),
    "PLATE": (("haarcascade_russian_plate_number.xml", 4),),
}
"""Of each kind, OpenCV's cascades (Viola & Jones 2001), and how many neighbouring hits make one of them believed."""


def cover(content: bytes, suffix: str) -> tuple[bytes, dict[str, int], str]:
    """(the picture, covered and without metadata; how many of each kind were found; what else became of it, "" for nothing). UserError for
    one that cannot be read.

    Pictures of several frames are refused: what is in the others would stay.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        image: Any = Image.open(io.BytesIO(content), formats=(FORMATS[suffix],))
        if image.width * image.height > MOST_PIXELS:
            raise UserError(f"{image.width} x {image.height} pixels, of which at most {MOST_PIXELS:,} are read")
        if getattr(image, "n_frames", 1) > 1:
            raise UserError(f"{image.n_frames} frames in one picture")
        image.load()
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(f"is no {FORMATS[suffix]} picture, or a damaged one ({error})") from None
    image = ImageOps.exif_transpose(image)  # which way is up is in the metadata too
    image, note = _of_eight_bits(image)
    alpha = image.getchannel("A") if image.mode in ("RGBA", "LA") else None
    pixels = np.array(image.convert("RGB"))
    found: dict[str, int] = {}
    grey = np.array(image.convert("L"))
    boxes = [(kind, box) for kind in DETECTORS for box in detect(grey, kind)]
    for kind, box in boxes:
        cover_box(pixels, box)
        found[kind] = found.get(kind, 0) + 1
    made: Any = Image.fromarray(pixels)
    if alpha is not None:
        made.putalpha(alpha)
    written = io.BytesIO()
    made.save(written, FORMATS[suffix], **({"quality": 92} if FORMATS[suffix] in ("JPEG", "WEBP") else {}))
    return written.getvalue(), found, note


def _of_eight_bits(image: Any) -> tuple[Any, str]:
    """(the picture with at most eight bits for each colour, what became of it). Pillow would cut larger values off at 255.

    Grey of sixteen bits keeps its black and its white, and one level of 257 is left. UserError where it is not known what white is.
    """
    from PIL import Image

    if image.mode not in ("F", "I") and not image.mode.startswith("I;16"):
        return image, ""
    grey = np.array(image)
    if image.mode == "F" or grey.min() < 0 or grey.max() > 0xFFFF:
        kind = "fractions" if image.mode == "F" else f"whole numbers from {grey.min()} to {grey.max()}"
        raise UserError(f"is a picture of {kind}, of which nobody knows how bright they are; it may have up to 16 bits for each colour")
    return Image.fromarray((grey / 257).round().astype(np.uint8)), "16 bits of grey became 8"


def detect(grey: np.ndarray, kind: str) -> list[tuple[int, int, int, int]]:
    """Boxes (x, y, width, height) of a kind in a picture of grey values, uint8 [H, W], those that overlap joined."""
    import cv2

    boxes: list[tuple[int, int, int, int]] = []
    even = cv2.equalizeHist(grey)
    for name, neighbours in DETECTORS[kind]:
        cascade = _cascade(name)
        how = {"scaleFactor": 1.1, "minNeighbors": neighbours, "minSize": (SMALLEST, SMALLEST)}
        boxes += [(int(x), int(y), int(width), int(height)) for x, y, width, height in cascade.detectMultiScale(even, **how)]
        if "profile" in name:  # which knows faces that look to the left
            mirrored = cascade.detectMultiScale(np.ascontiguousarray(even[:, ::-1]), **how)
            boxes += [(grey.shape[1] - int(x) - int(width), int(y), int(width), int(height)) for x, y, width, height in mirrored]
    return _joined(boxes)


@functools.cache
def _cascade(name: str) -> Any:
    try:
        import cv2

        cascade = cv2.CascadeClassifier(cv2.data.haarcascades + name)  # type: ignore[attr-defined]
    except (ImportError, AttributeError):
        raise UserError("covering faces needs the package opencv-python-headless below 5", "pip install 'omnia[anonymize]'") from None
    if cascade.empty():
        raise UserError(f"OpenCV's {name} is missing", "Install it again: pip install 'omnia[anonymize]'")
    return cascade


def _joined(boxes: list[tuple[int, int, int, int]]) -> list[tuple[int, int, int, int]]:
    """Boxes whose middles lie in another are one."""
    found: list[tuple[int, int, int, int]] = []
    for x, y, width, height in sorted(boxes, key=lambda box: -box[2] * box[3]):
        middle = x + width / 2, y + height / 2
        if not any(left <= middle[0] <= left + w and top <= middle[1] <= top + h for left, top, w, h in found):
            found.append((x, y, width, height))
    return found


def cover_box(pixels: np.ndarray, box: tuple[int, int, int, int]) -> None:
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
