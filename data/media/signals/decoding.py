"""Encoded images, videos and recordings into arrays, and what is known of them without decoding.

Files come from strangers. Whatever is wrong with one raises Undecodable, and what a file claims of its size is checked before memory
is taken for it. Formats are known by their content, never by a name, and only those listed here are tried: a playlist that names other
files or addresses is none of them. Needs Pillow, PyAV, soundfile and soxr (extra: media).
"""

import contextlib
import functools
import io
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from data.errors import UserError
from data.media.kinds import Facts, text_facts

MAX_PIXELS = 1 << 26  # of an image, or of a frame
MAX_CLIP_BYTES = 1 << 30  # of the frames that one call returns
MAX_SAMPLES = 1 << 28  # of a recording that one call returns
_IMAGE_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
_CONTAINERS = {  # of libavformat, whose protocols stay closed: a file must not make us read another
    "format_whitelist": "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,gif,ogg,mp3,wav,flac,aac,mpegts,mpeg,flv,asf",
    "protocol_whitelist": "",
}
_SKIPPING = ("h264", "hevc", "vp8", "vp9", "mpeg1video", "mpeg2video", "mpeg4")  # decoders that obey skip_frame packet by packet
_UNKNOWN = 1 << 62  # samples, with which a header says that it does not know
_STREAMED = 0x7FFF0000  # bytes, the same
_PREROLL = 32  # packets of an MP3 that are decoded before one that is wanted: it may take bits from some of them
_BLOCK_VALUES = 1 << 20  # of all channels of a recording in memory at once


class Undecodable(Exception):
    """A file that cannot be decoded; the message says why."""


class Examined(NamedTuple):
    """What a look at the whole of a file found."""

    facts: Facts
    remarks: tuple[str, ...]  # what is unusual, but no fault
    look: tuple[int, int] | None  # of an image: perceptual_hash


def probe(kind: str, content: str | bytes) -> Facts:
    """What is known of a part by its header; of a video by its packets and first frames; of a recording whose header does not say how long
    it is, by decoding it. What `examine` finds, if it finds no fault."""
    if isinstance(content, str):
        return text_facts(content)
    return {"image": _probe_image, "video": _probe_video, "audio": _probe_audio}[kind](content)


def examine(kind: str, content: str | bytes) -> Examined:
    """Decodes an image and a recording to the end, and the keyframes of a video; Undecodable for one that breaks off."""
    if isinstance(content, str):
        return Examined(text_facts(content), (), None)
    return {"image": _examine_image, "video": _examine_video, "audio": _examine_audio}[kind](content)


# --------------------------------------------------------------------------------------------------------------------- images


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
    box: (top, left, bottom, right) as fractions of the picture: the part of it that is wanted. out: where it should go, of that size.
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
            resampling = _pillow().Resampling.BILINEAR  # which averages over all pixels where it makes smaller
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
        _check_pixels(width, height, max_pixels)
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


def encode_image(pixels_HWC: np.ndarray, form: str = "PNG", **options) -> bytes:
    """uint8 [H, W, 3] as a file: PNG, JPEG, WEBP."""
    file = io.BytesIO()
    _pillow().fromarray(pixels_HWC).save(file, form, **options)
    return file.getvalue()


def encode_animation(frames_FHWC: np.ndarray, fps: float) -> bytes:
    """uint8 [F, H, W, 3] as a GIF that begins again at its end."""
    first, *rest = (_pillow().fromarray(frame) for frame in frames_FHWC)
    file = io.BytesIO()
    first.save(file, "GIF", save_all=True, append_images=rest, duration=round(1000 / fps), loop=0)
    return file.getvalue()


def encode_sound(samples_N: np.ndarray, rate: int) -> bytes:
    """A WAV file of one channel, 16 bits a sample."""
    buffer = io.BytesIO()
    _soundfile().write(buffer, np.clip(samples_N, -1.0, 1.0), rate, format="WAV", subtype="PCM_16")
    return buffer.getvalue()


def perceptual_hash(image) -> tuple[int, int]:
    """(64 bits, 24 bits) of a picture of Pillow's: which of two neighbours is brighter on an 8 x 9 grid; and the mean colour.

    Pictures that were scaled or encoded anew keep nearly all of them.
    """
    small = np.asarray(image.resize((9, 8), _pillow().Resampling.BILINEAR, reducing_gap=2.0), np.int32)
    grey = small @ np.array([299, 587, 114])
    bits = np.packbits(grey[:, 1:] > grey[:, :-1])
    mean = small.reshape(-1, 3).mean(0).astype(np.uint8)
    return int.from_bytes(bits.tobytes(), "big"), int.from_bytes(mean.tobytes(), "big")


def _probe_image(content):
    with _image(content, MAX_PIXELS) as image:
        width, height = image.size[::-1] if _is_turned(image) else image.size
        return Facts(width=width, height=height, bytes=len(content))


def _examine_image(content):
    facts = _probe_image(content)
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
        look = perceptual_hash(_as_rgb(_upright(image)))
    return Examined(facts, tuple(remarks), look)


@contextlib.contextmanager
def _image(content: bytes, max_pixels: int) -> Iterator[Any]:
    """The opened file, its size checked; whatever Pillow raises inside becomes Undecodable."""
    pillow = _pillow()
    width, height = _webp_size(content)  # whose decoder takes memory for the picture when the file is opened
    _check_pixels(width, height, max_pixels)
    try:
        image = pillow.open(io.BytesIO(content), formats=_IMAGE_FORMATS)
    except pillow.UnidentifiedImageError:
        raise Undecodable("no JPEG, PNG, WebP, GIF or BMP" if content else "empty") from None
    except pillow.DecompressionBombError:
        raise Undecodable(f"too large: more than {max_pixels:,} pixels") from None
    except Exception as error:  # a decoder fed with nonsense can raise anything
        raise Undecodable(f"cannot be decoded ({_line(error)})") from None
    with image:
        _check_pixels(image.width, image.height, max_pixels)
        try:
            yield image
        except (Undecodable, UserError):
            raise
        except Exception as error:
            raise Undecodable(f"cannot be decoded ({_line(error)})") from None


def _pixels(picture, out):
    """The picture as an array, put together in `out`: what np.asarray does by way of several copies."""
    out = np.empty((picture.height, picture.width, 3), np.uint8) if out is None else out
    make_encoder = getattr(_pillow(), "_getencoder", None)
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


def _check_pixels(width, height, most):
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
    pillow = _pillow()
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


# --------------------------------------------------------------------------------------------------------------------- videos


def decode_video(
    content: bytes,
    times_s: Sequence[float] | np.ndarray,
    *,
    size: tuple[int, int] | None = None,
    max_pixels: int = MAX_PIXELS,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """uint8 [F, H, W, 3]: the frames that are shown at these seconds from the start of the video; before it the first, after it the last.

    size: (height, width) to scale to. Only what leads from a keyframe to a wanted frame is decoded. out: where the frames should go.
    """
    with _video(content, max_pixels) as video:
        wanted = [video.shown_at(time) for time in times_s]
        size = size or (out.shape[1:3] if out is not None else None)
        place = {number: k for k, number in reversed(list(enumerate(wanted)))}  # the first of each
        for number, frame in video.decode(sorted(place), size):
            height, width = video.shape(frame, size)
            if out is None:
                out = np.empty((len(wanted), height, width, 3), np.uint8)
            video.write(frame, out[place[number]])
        assert out is not None
        for k, number in enumerate(wanted):
            if k != place[number]:
                out[k] = out[place[number]]
        return out


def video_rate(frames: int, first: float, last: float, stated: float) -> float:
    """Frames per second by the times of the first and last frame, unless the file states nearly the same."""
    if frames < 2 or last <= first:
        return stated or 1.0
    counted = (frames - 1) / (last - first)
    return stated if stated and abs(counted / stated - 1) < 0.01 else counted


def _probe_video(content):
    with _video(content, MAX_PIXELS) as video:
        return video.facts(len(content))


def _examine_video(content):
    with _video(content, MAX_PIXELS) as video:
        facts = video.facts(len(content))
        video.decode_keyframes()
    return Examined(facts, (), None)


@contextlib.contextmanager
def _video(content: bytes, max_pixels: int) -> Iterator["_Video"]:
    av = _av()
    try:
        with av.open(io.BytesIO(content), container_options=_CONTAINERS) as container:
            yield _Video(container, max_pixels)
    except (Undecodable, UserError):
        raise
    except av.error.FFmpegError as error:
        raise Undecodable(f"cannot be decoded ({error.strerror or _line(error)})" if content else "empty") from None
    except (ValueError, IndexError, OverflowError, MemoryError, OSError) as error:  # IndexError: of a stream that begins late
        raise Undecodable(f"cannot be decoded ({_line(error)})") from None


class _Video:
    """The packets of a video stream, and its frames by their numbers in the order of showing.

    Which frames are shown, and when, the packets say: all but those that an edit list hides, which are decoded because others need them.
    What comes before the first frame that can be decoded (a stream that was cut within a group of pictures) is known from the frames alone,
    as is everything where packets have no times.
    """

    def __init__(self, container, max_pixels):
        if not container.streams.video:
            raise Undecodable("no video in it")
        self._stream = container.streams.video[0]
        self._codec = self._stream.codec_context
        if self._codec is None:
            raise Undecodable("a video of an unknown codec")
        _check_pixels(self._codec.width, self._codec.height, max_pixels)
        self._max_pixels = max_pixels
        self._codec.thread_count = 1  # parallel are the processes that call this
        self._skips = self._codec.name in _SKIPPING
        self._base = self._stream.time_base
        self._stretch = float(self._stream.sample_aspect_ratio or 1)  # of a pixel's width over its height
        self._reformatter = _av().video.reformatter.VideoReformatter()
        self._size: tuple[int, int] | None = None
        self._fed = 0  # place after the last packet that the decoder has had
        self._packets = [packet for packet in container.demux(self._stream) if packet.size]
        self._keys = [place for place, packet in enumerate(self._packets) if packet.is_keyframe] or [0]
        if not self._packets:
            raise Undecodable("a video without frames")
        shown = [place for place, packet in enumerate(self._packets) if not packet.is_discard]
        self._place = {self._packets[place].pts: place for place in shown}  # in the order of decoding
        # AVI has no times of showing: its packets say the order of decoding, also where they were copied into another container.
        reordered = self._codec.has_b_frames and (container.format.name == "avi" or self._codec.name == "mpeg4")
        guessed = reordered and list(self._place) == sorted(self._place, key=lambda pts: (pts is not None, pts))
        self._timed = len(self._place) == len(shown) and all(packet.pts is not None for packet in self._packets) and not guessed
        self._times = self._shown_times() if self._timed else self._guessed_times()
        if not len(self._times):
            raise Undecodable("a video without frames")

    def _shown_times(self):
        """Ascending times of the frames that are shown, by the packets from the first frame on that comes as its packet says."""
        times = np.sort(np.fromiter(self._place, np.int64, len(self._place)))
        first = self._packets[self._keys[0]]
        if self._place.get(first.pts) == 0 and first.pts == times[0]:
            self._codec.flush_buffers()
            alone = [*self._feed(0, "DEFAULT"), *self._drain()]  # of one packet, which costs less than waiting for what comes out first
            if alone and alone[0].pts == first.pts:
                self._first = alone[0]
                return times
        early = []
        for frame in self._frames(0):
            early.append(self._time(frame))
            if len(early) == 1:
                self._first = frame
            if frame.pts >= first.pts:
                break
        if any(later <= sooner for sooner, later in itertools.pairwise(early)):
            raise Undecodable("a video whose frames come in a wrong order")
        return np.concatenate([np.array(early, np.int64), times[times > early[-1]]]) if early else times[:0]

    def _guessed_times(self):
        """Those of frames whose packets do not say them, by a decoding of all."""
        times = []
        for frame in self._frames(0):
            if not times:
                self._first = frame
            times.append(frame.pts)
        if None in times:
            step = 1 / float(self._base * (self._stream.average_rate or 1))
            return np.round(np.arange(len(times)) * step).astype(np.int64)
        return np.sort(np.array(times, np.int64))

    def facts(self, content_bytes):
        height, width = self.shape(self._first, None)
        stated = float(self._stream.average_rate or 0)
        rate = video_rate(len(self._times), float(self._times[0] * self._base), float(self._times[-1] * self._base), stated)
        return Facts(width=width, height=height, frames=len(self._times), rate=rate, bytes=content_bytes)

    def shown_at(self, time_s):
        """Number of the frame that is on screen."""
        moment = self._times[0] + math.floor(time_s / float(self._base) + 0.5)  # the nearest tick: times have rounding errors
        return int(np.clip(np.searchsorted(self._times, moment, side="right") - 1, 0, len(self._times) - 1))

    def decode(self, numbers, size):
        """(number, frame) of ascending numbers of frames."""
        height, width = size or self.shape(self._first, None)
        if len(numbers) * height * width * 3 > MAX_CLIP_BYTES:
            raise Undecodable(f"{len(numbers)} frames of {width} x {height} pixels take more than {MAX_CLIP_BYTES:,} bytes")
        if not self._timed:
            wanted = set(numbers)
            return (pair for pair in enumerate(itertools.islice(self._frames(0), numbers[-1] + 1)) if pair[0] in wanted)
        return self._decode_timed(numbers)

    def _decode_timed(self, numbers):
        moments = {int(self._times[number]) for number in numbers}
        frames, shown = None, None
        for number in numbers:
            moment = int(self._times[number])
            key = self._keyframe(moment)
            if frames is None or key >= self._fed:
                frames = self._frames(key, moments)
                shown = next(frames, None)
                # A picture that is refreshed bit by bit has keyframes from which the first whole frame is a later one.
                while shown is not None and self._time(shown) > moment and key > self._keys[0]:
                    key = self._keys[self._keys.index(key) - 1]
                    frames = self._frames(key, moments)
                    shown = next(frames, None)
            while shown is None or self._time(shown) < moment:
                frame = next(frames, None)
                if frame is None:
                    break
                shown = frame
            if shown is None:
                raise Undecodable("a video without frames")
            yield number, shown  # for a frame that never came, the one after it or the last

    def decode_keyframes(self):
        self._codec.flush_buffers()
        for key in self._keys:
            self._feed(key, "NONKEY")
        self._drain()

    def _keyframe(self, moment):
        """Place of the last keyframe from which this frame can be reached: one that is shown, and comes, before it."""
        place = self._place.get(moment, 0)
        before = (key for key in reversed(self._keys) if key <= place and self._packets[key].pts <= moment)
        return next(before, 0)

    def _frames(self, start, moments=None):
        """Frames in the order of showing, from a packet on. Left out are those at none of the moments that no other needs."""
        self._codec.flush_buffers()
        for place in range(start, len(self._packets)):
            self._fed = place + 1
            wanted = moments is None or self._packets[place].pts in moments
            yield from self._feed(place, "DEFAULT" if wanted else "NONREF")
        yield from self._drain()

    def _feed(self, place, skipped):
        """What the decoder gives for a packet."""
        if self._skips:
            self._codec.skip_frame = skipped
        try:
            return list(filter(self._check, self._codec.decode(self._packets[place])))
        except _av().error.FFmpegError:
            if place < self._keys[0]:  # which what was cut off would be needed for
                return []
            raise

    def _drain(self):
        """What the decoder still holds; after it, it must be flushed."""
        return list(filter(self._check, self._codec.decode(None)))

    def _check(self, frame):
        """True for a frame as the others are."""
        size = frame.width, frame.height
        if size != (self._size or size):
            raise Undecodable("a video whose size changes")
        if frame.is_corrupt:
            raise Undecodable("a damaged frame")
        self._size = size
        _check_pixels(frame.width, frame.height, self._max_pixels)
        return True

    def _time(self, frame):
        if frame.pts is None:
            raise Undecodable("a video with a frame that has no time")
        return frame.pts

    def shape(self, frame, size):
        """(height, width) that a frame is shown with."""
        if size:
            return size
        width = max(round(frame.width * self._stretch), 1)
        _check_pixels(width, frame.height, self._max_pixels)
        return (width, frame.height) if _placing(frame)[0] else (frame.height, width)

    def write(self, frame, out):
        """Puts a frame into uint8 [H, W, 3], scaled to that."""
        transposed, mirrored, inverted = _placing(frame)
        height, width = out.shape[1::-1] if transposed else out.shape[:2]
        (plane,) = self._reformatter.reformat(frame, width, height, "rgb24", interpolation="BILINEAR").planes
        rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[:height, : width * 3]  # which are padded
        if transposed or mirrored or inverted or not out.flags.c_contiguous:
            pixels = rows.reshape(height, width, 3)
            pixels = pixels.swapaxes(0, 1) if transposed else pixels
            out[...] = pixels[:: -1 if inverted else 1, :: -1 if mirrored else 1]
        else:
            out.reshape(height, width * 3)[...] = rows


def _placing(frame):
    """(transposed, mirrored, inverted): what a player does to a picture, in this order; a turn is two of them."""
    side = frame.side_data.get("DISPLAYMATRIX")
    if side is None:
        return False, False, False
    a, b, _, c, d, *_ = np.frombuffer(side, np.int32).tolist()  # the pixel at (x, y) is shown at (a x + c y, b x + d y)
    if abs(a) + abs(d) < abs(b) + abs(c):
        return True, c < 0, b < 0
    return False, a < 0, d < 0


# ------------------------------------------------------------------------------------------------------------------ recordings


def decode_audio(content: bytes, rate: int, start_s: float = 0.0, seconds: float | None = None) -> np.ndarray:
    """float32 [n] in [-1, 1]: the mean of the channels, `rate` values a second; shorter where the recording ends.

    start_s, seconds: the part of it that is wanted; None for all from there on.
    """
    with _sound(content) as sound:
        first = max(round(start_s * sound.rate), 0)
        last = None if seconds is None else first + round(seconds * sound.rate)
        most = MAX_SAMPLES / max(rate / sound.rate, 1)
        if sound.samples is not None and min(sound.samples, sound.samples if last is None else last) - first > most:
            raise Undecodable(f"too long: {sound.samples / sound.rate:,.0f} seconds in one piece")
        blocks, count = [np.zeros(0, np.float32)], 0
        for block in sound.blocks(first, last):
            blocks.append(block)
            count += len(block)
            if count > most:
                raise Undecodable(f"too long: more than {most / sound.rate:,.0f} seconds in one piece")
        mono = np.concatenate(blocks)
        if not np.isfinite(mono).all():
            raise Undecodable("holds values that are no numbers")
        if sound.rate != rate and len(mono):
            mono = _soxr().resample(mono, sound.rate, rate)
        return np.clip(mono, -1.0, 1.0, dtype=np.float32)


def _probe_audio(content):
    with _sound(content) as sound:
        if sound.samples is not None:
            return Facts(rate=float(sound.rate), samples=sound.samples, bytes=len(content))
    return _examine_audio(content).facts


def _examine_audio(content):
    with _sound(content) as sound:
        loudest, count = 0.0, 0
        for block in sound.blocks(0, None):
            if not np.isfinite(block).all():
                raise Undecodable("holds values that are no numbers")
            loudest, count = max(loudest, float(np.abs(block).max(initial=0))), count + len(block)
        if not count:
            raise Undecodable("a recording without samples")
        remarks = (*(("silent",) if loudest == 0 else ()), *sound.remarks())
        return Examined(Facts(rate=float(sound.rate), samples=count, bytes=len(content)), remarks, None)


@contextlib.contextmanager
def _sound(content: bytes) -> Iterator["_SoundFile | _SoundStream"]:
    """A recording, opened; whatever the libraries raise inside becomes Undecodable."""
    av, soundfile = _av(), _soundfile()
    if not content:
        raise Undecodable("empty")
    try:
        if (file := _sound_file(content)) is not None:
            with file:
                yield _SoundFile(file, content)
            return
        with av.open(io.BytesIO(content), container_options=_CONTAINERS) as container:
            yield _SoundStream(container, content)
    except (Undecodable, UserError):
        raise
    except av.error.FFmpegError as error:
        raise Undecodable(f"cannot be decoded ({error.strerror or _line(error)})") from None
    except (soundfile.SoundFileError, RuntimeError, ValueError, IndexError, OverflowError, MemoryError) as error:
        raise Undecodable(f"cannot be decoded ({_line(error)})") from None


def _sound_file(content):
    """What libsndfile can be trusted with; None for what it does not know, and for what it takes at its word where only decoding tells how
    long it is: MP3, an Ogg file of several recordings, a header that says nothing (a file that was written to a pipe)."""
    soundfile = _soundfile()
    try:
        file = soundfile.SoundFile(io.BytesIO(content))
    except (soundfile.SoundFileError, RuntimeError, ValueError, TypeError):
        return None
    if file.format != "MP3" and 0 < file.frames < _UNKNOWN and file.samplerate > 0 and not _is_chained(content):
        return file
    file.close()
    return None


def _is_chained(content):
    """Whether an Ogg file has a recording behind another: pages that begin a stream after pages that do not."""
    place, begun = 0, False
    while content.startswith(b"OggS") and (place := content.find(b"OggS\0", place)) >= 0:
        begins = len(content) > place + 5 and content[place + 5] & 2
        if begins and begun:
            return True
        begun, place = not begins, place + 4
    return False


class _SoundFile:
    """By libsndfile, which finds any place at once and knows the length; raises where that much does not come."""

    def __init__(self, file, content):
        self._file, self._content = file, content
        self.rate, self.samples = file.samplerate, file.frames

    def blocks(self, first: int, last: int | None) -> Iterator[np.ndarray]:
        """float32: the mean of the channels of samples [first, last), at the recording's own rate."""
        first = min(first, self.samples)
        left = (self.samples if last is None else min(last, self.samples)) - first
        rows = max(_BLOCK_VALUES // self._file.channels, 1)
        if first:
            self._file.seek(first)
        while left > 0:
            block = self._file.read(min(rows, left), dtype="float32", always_2d=True)
            if not len(block):
                raise Undecodable(f"breaks off after {self._file.tell():,} of {self.samples:,} samples")
            left -= len(block)
            yield block.mean(axis=1) if block.shape[1] > 1 else block[:, 0]

    def remarks(self):
        told = int.from_bytes(self._content[4:8], "little") if self._content.startswith(b"RIFF") else 0
        return ("shorter than its header says",) if len(self._content) - 8 < told < _STREAMED else ()


class _SoundStream:
    """The first sound of a container by libavcodec, which counts as it decodes. What cannot be decoded is left out, if it is little."""

    samples = None

    def __init__(self, container, content):
        if not container.streams.audio or container.streams.audio[0].codec_context is None:
            raise Undecodable("no sound in it")
        self._container, self._content, self._stream = container, content, container.streams.audio[0]
        self._codec = self._stream.codec_context
        self._packets = self._bad = self._channels = 0
        self._base = self._stream.time_base
        frames = self._frames(0)
        self._begun = list(itertools.islice(frames, 1))
        if not self._begun:
            raise Undecodable("a recording without samples")
        self.rate = self._begun[0][1].sample_rate
        self._rest = frames

    def blocks(self, first: int, last: int | None) -> Iterator[np.ndarray]:
        """float32: the mean of the channels of samples [first, last), at the recording's own rate. To be called once."""
        self._wanted = first
        for place, frame in itertools.chain(self._begun, self._rest):
            if frame.sample_rate != self.rate:
                raise Undecodable("a recording whose rate changes")
            stop = frame.samples if last is None else max(last - place, 0)
            yield self._mean_of_channels(frame)[max(first - place, 0) : stop]
            if last is not None and place + frame.samples >= last:
                return
        if self._bad > 2 and self._bad > self._packets / 100:
            raise Undecodable(f"cannot be decoded (too many of its packets: {self._bad:,} of {self._packets:,})")
        if self._breaks_off():
            raise Undecodable(f"breaks off after {self._packets:,} packets")

    def remarks(self):
        return ("holds packets that cannot be decoded",) if self._bad else ()

    def _frames(self, wanted):
        """(number of its first sample, frame) of all that is decoded."""
        self._wanted = wanted
        count, step = 0, 0
        for packet in self._container.demux(self._stream):
            number, self._packets = self._packets, self._packets + bool(packet.size)
            if number == _PREROLL and self._codec.name == "mp3float" and packet.duration:
                # All of its packets hold as many samples. Those that end well before the first that is wanted need no decoding.
                step = round(packet.duration * self._base * self._codec.sample_rate)
                lead = step * number - count  # what a decoder gives at first and is no part of the recording
            if step and packet.size:
                count = step * number - lead
                if step * (number + _PREROLL) - lead < self._wanted:
                    continue
            try:
                frames = self._codec.decode(packet if packet.size else None)
            except _av().error.FFmpegError:
                self._bad += bool(packet.size)
                continue
            for frame in frames:
                yield count, frame
                count += frame.samples

    def _mean_of_channels(self, frame):
        """float32 [samples] of a frame of any format. In one plane: PyAV looks for planes behind the eight that a frame has room for."""
        if frame.layout.nb_channels != self._channels:
            self._channels, self._one_plane = frame.layout.nb_channels, _av().AudioResampler("flt", frame.layout)
        (packed,) = self._one_plane.resample(frame)
        values = packed.to_ndarray().reshape(-1, self._channels)
        return values.mean(1) if self._channels > 1 else values[:, 0].copy()

    def _breaks_off(self):
        """Whether an index leads behind the end of the file; or an MP3 has less than its header says in frames, and in bytes too."""
        form = self._container.format.name
        if "mov" in form:
            return any(entry.pos + entry.size > len(self._content) for entry in self._stream.index_entries)
        told = _xing(self._content) if form == "mp3" else None
        return told is not None and self._packets < told[0] and len(self._content) < told[1]


def _xing(content):
    """(frames, bytes with what comes before them) by the header that most MP3 begin with; None where it says no such."""
    start = 0
    if content.startswith(b"ID3"):
        start = 10 + sum((byte & 0x7F) << 7 * place for place, byte in enumerate(content[9:5:-1]))
    header = content[start : start + 256]
    found = max(header.find(b"Xing"), header.find(b"Info"))
    if found < 0 or header[found + 7 : found + 8] not in (b"\x03", b"\x07", b"\x0b", b"\x0f"):  # flags of what follows
        return None
    frames, size = (int.from_bytes(header[place : place + 4], "big") for place in (found + 8, found + 12))
    return frames, start + size


# -------------------------------------------------------------------------------------------------------------------- packages


def _line(error):
    return " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__


def _missing(package):
    return UserError(f"Images, videos and recordings need the package {package}.", 'pip install "omnia[media]"')


def _pillow():
    try:
        from PIL import Image
    except ImportError:
        raise _missing("Pillow") from None
    return Image


def _av():
    try:
        import av
        import av.video.reformatter
    except ImportError:
        raise _missing("av") from None
    return av


def _soundfile():
    try:
        import soundfile
    except (ImportError, OSError):  # OSError: its library is missing
        raise _missing("soundfile") from None
    return soundfile


def _soxr():
    try:
        import soxr
    except ImportError:
        raise _missing("soxr") from None
    return soxr
