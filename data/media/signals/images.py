"""Images: encoded files to arrays, and facts of them without decoding.

Files come from strangers. Whatever is wrong with one raises Undecodable, and what a file claims of its size is checked before memory
is taken for it. Formats are known by their content, never by a name, and only those listed here are tried.
"""

import contextlib
import functools
import io
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from data.errors import UserError
from data.media.kinds import Examined, Facts, Undecodable
from data.media.signals.packages import describe, load_pillow

MAX_PIXELS = 1 << 26  # of an image, or of a frame
_IMAGE_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")


def decode_image(
    content: bytes,
    *,
    size: tuple[int, int] | None = None,
    box: tuple[float, float, float, float] | None = None,
    max_pixels: int = MAX_PIXELS,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """uint8 [H, W, 3], turned as its EXIF says, grey, palettes, CMYK and 16 bits as RGB, alpha over white; of an animation the first frame.

    size: (height, width) to scale to, without smaller pictures being decoded at full size where the format allows (JPEG by 2, 4, 8).
    box: (top, left, bottom, right) as fractions of the picture: the cutout that is wanted. out: where it should go, of that size.
    """
    size = size or (out.shape[:2] if out is not None else None)
    plain = None if box else _plain_jpeg(content, size, max_pixels, out)
    if plain is not None:
        return plain
    with _image(content, max_pixels) as image:
        turned = _is_turned(image)
        if size and image.format in ("JPEG", "MPO"):
            tall, wide = (box[2] - box[0], box[3] - box[1]) if box else (1.0, 1.0)
            needed = math.ceil(size[1] / wide), math.ceil(size[0] / tall)
            image.draft(None, needed[::-1] if turned else needed)
        picture = _as_rgb(_upright(image))
        width, height = picture.size
        top, left, bottom, right = box or (0.0, 0.0, 1.0, 1.0)
        edges = (left * width, top * height, right * width, bottom * height)
        if size and (box or size != (height, width)):
            resampling = load_pillow().Resampling.BILINEAR  # which averages over all pixels where it makes smaller
            picture = picture.resize((size[1], size[0]), resampling, box=edges, reducing_gap=2.0)
        elif box:
            picture = picture.crop(tuple(round(edge) for edge in edges))
        return _pixels(picture, out)


def _plain_jpeg(content: bytes, size: tuple[int, int] | None, max_pixels: int, out: np.ndarray | None) -> np.ndarray | None:
    """A JPEG at its own size by libjpeg itself, straight into `out`: the pixels of Pillow, which copies them twice, in two thirds of the
    time. None for all others, and for what has anything wrong with it, which Pillow can say better."""
    turbo = _simplejpeg()
    if turbo is None or not content.startswith(b"\xff\xd8\xff") or _has_exif(content):
        return None
    try:
        height, width, colours, _ = turbo.decode_jpeg_header(content)
        if colours not in ("YCbCr", "Gray", "RGB") or (size and size != (height, width)):
            return None
        check_pixels(width, height, max_pixels)
        out = np.empty((height, width, 3), np.uint8) if out is None else out
        buffer = out if out.flags.c_contiguous else np.empty(out.shape, np.uint8)
        turbo.decode_jpeg(content, "RGB", fastdct=False, fastupsample=False, buffer=buffer)
    except ValueError:
        return None
    if buffer is not out:
        out[...] = buffer
    return out


def _has_exif(content):
    """Whether a JPEG has Exif before its picture, in whichever segment; True too where its segments cannot be followed."""
    place = 2
    while content[place : place + 1] == b"\xff":
        marker = content[place + 1 : place + 2]
        if marker == b"\xda":  # the picture begins
            return False
        if marker == b"\xe1" and content.startswith(b"Exif\0\0", place + 4):
            return True
        if marker == b"\xff":  # any number of these may stand before a segment
            place += 1
        elif marker == b"\x01" or b"\xd0" <= marker <= b"\xd8":  # without content
            place += 2
        else:
            place += 2 + int.from_bytes(content[place + 2 : place + 4], "big")
    return True


@functools.cache
def _simplejpeg():
    try:
        import simplejpeg
    except ImportError:
        return None
    return simplejpeg


def perceptual_hash(image) -> tuple[int, int]:
    """(64 bits, 24 bits) of a picture of Pillow's: which of two neighbours is brighter on an 8 x 9 grid; and the mean colour.

    Pictures that were scaled or encoded anew keep nearly all of them.
    """
    small = np.asarray(image.resize((9, 8), load_pillow().Resampling.BILINEAR, reducing_gap=2.0), np.int32)
    grey = small @ np.array([299, 587, 114])
    bits = np.packbits(grey[:, 1:] > grey[:, :-1])
    mean = small.reshape(-1, 3).mean(0).astype(np.uint8)
    return int.from_bytes(bits.tobytes(), "big"), int.from_bytes(mean.tobytes(), "big")


def probe_image(content):
    with _image(content, MAX_PIXELS) as image:
        width, height = image.size[::-1] if _is_turned(image) else image.size
        return Facts(width=width, height=height, bytes=len(content))


def examine_image(content):
    facts = probe_image(content)
    remarks = []
    with _image(content, MAX_PIXELS) as image:
        if getattr(image, "is_animated", False):
            remarks.append("animated: its first frame counts")
        if image.mode == "CMYK":
            remarks.append("CMYK")
        if image.mode.startswith("I"):
            remarks.append("16 bits a value")
        if image.format in ("JPEG", "MPO"):
            image.draft(None, (72, 64))  # all of the file is read, in an eighth of the time
        fingerprint = perceptual_hash(_as_rgb(_upright(image)))
    return Examined(facts, tuple(remarks), fingerprint)


@contextlib.contextmanager
def _image(content: bytes, max_pixels: int) -> Iterator[Any]:
    """The opened file, its size checked; whatever Pillow raises inside becomes Undecodable."""
    pillow = load_pillow()
    width, height = _webp_size(content)  # whose decoder takes memory for the picture when the file is opened
    check_pixels(width, height, max_pixels)
    try:
        image = pillow.open(io.BytesIO(content), formats=_IMAGE_FORMATS)
    except pillow.UnidentifiedImageError:
        raise Undecodable("no JPEG, PNG, WebP, GIF or BMP" if content else "empty") from None
    except pillow.DecompressionBombError:
        raise Undecodable(f"too large: more than {max_pixels:,} pixels") from None
    except Exception as error:  # a decoder fed with nonsense can raise anything
        raise Undecodable(f"cannot be decoded ({describe(error)})") from None
    with image:
        check_pixels(image.width, image.height, max_pixels)
        try:
            yield image
        except (Undecodable, UserError):
            raise
        except Exception as error:
            raise Undecodable(f"cannot be decoded ({describe(error)})") from None


def _pixels(picture, out):
    """The picture as an array, put together in `out`: what np.asarray does by way of several copies."""
    out = np.empty((picture.height, picture.width, 3), np.uint8) if out is None else out
    make_encoder = getattr(load_pillow(), "_getencoder", None)
    if make_encoder is None or not out.flags.c_contiguous:
        out[...] = np.asarray(picture)
        return out
    encoder, flat, start, ended = make_encoder("RGB", "raw", ("RGB",)), out.reshape(-1), 0, 0
    encoder.setimage(picture.im, (0, 0, picture.width, picture.height))
    while not ended:
        _, ended, block = encoder.encode(max(1 << 16, 4 * picture.width))  # which stays in the cache
        flat[start : start + len(block)] = np.frombuffer(block, np.uint8)
        start += len(block)
    if ended < 0 or start != len(flat):
        raise Undecodable("cannot be decoded")
    return out


def check_pixels(width, height, most):
    if width * height > most:
        raise Undecodable(f"too large: {width:,} x {height:,} pixels, more than {most:,}")


def _webp_size(content):
    """(width, height) that the header of a WebP file claims; (0, 0) for other files."""
    if len(content) < 30 or content[:4] != b"RIFF" or content[8:12] != b"WEBP":
        return 0, 0
    if content[12:16] == b"VP8X":
        return 1 + int.from_bytes(content[24:27], "little"), 1 + int.from_bytes(content[27:30], "little")
    if content[12:16] == b"VP8L":
        bits = int.from_bytes(content[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    return int.from_bytes(content[26:28], "little") & 0x3FFF, int.from_bytes(content[28:30], "little") & 0x3FFF


def _is_turned(image):
    """Whether EXIF says that rows are columns."""
    return _orientation(image) in (5, 6, 7, 8)


def _orientation(image):
    return image.getexif().get(0x0112, 1) if "exif" in image.info else 1


def _upright(image):
    if _orientation(image) == 1:
        return image
    from PIL import ImageOps

    return ImageOps.exif_transpose(image)


def _as_rgb(image):
    pillow = load_pillow()
    if image.mode == "RGB" and "transparency" not in image.info:
        image.load()
        return image
    if image.mode.startswith("I"):  # Pillow would cut off what is above 255
        return pillow.fromarray((np.asarray(image).astype(np.int64).clip(0, 65535) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = pillow.new("RGBA", image.size, (255, 255, 255, 255))
        return pillow.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")
