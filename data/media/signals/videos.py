"""Videos: frames at given times, and facts by packets and first frames.

Files come from strangers, as those of images (data/media/signals/images.py).
"""

import contextlib
import io
import itertools
import math
from collections.abc import Iterator, Sequence

import numpy as np

from data.errors import UserError
from data.media.kinds import Examined, Facts, Undecodable
from data.media.signals.images import MAX_PIXELS, check_pixels
from data.media.signals.packages import CONTAINERS, describe, load_av

MAX_CLIP_BYTES = 1 << 30  # of the frames that one call returns
_SKIPPING = ("h264", "hevc", "vp8", "vp9", "mpeg1video", "mpeg2video", "mpeg4")  # decoders that obey skip_frame packet by packet


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


def probe_video(content):
    with _video(content, MAX_PIXELS) as video:
        return video.facts(len(content))


def examine_video(content):
    with _video(content, MAX_PIXELS) as video:
        facts = video.facts(len(content))
        video.decode_keyframes()
    return Examined(facts, (), None)


@contextlib.contextmanager
def _video(content: bytes, max_pixels: int) -> Iterator["_Video"]:
    av = load_av()
    try:
        with av.open(io.BytesIO(content), container_options=CONTAINERS) as container:
            yield _Video(container, max_pixels)
    except (Undecodable, UserError):
        raise
    except av.error.FFmpegError as error:
        raise Undecodable(f"cannot be decoded ({error.strerror or describe(error)})" if content else "empty") from None
    except (ValueError, IndexError, OverflowError, MemoryError, OSError) as error:  # IndexError: of a stream that begins late
        raise Undecodable(f"cannot be decoded ({describe(error)})") from None


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
        check_pixels(self._codec.width, self._codec.height, max_pixels)
        self._max_pixels = max_pixels
        self._codec.thread_count = 1  # parallel are the processes that call this
        self._skips = self._codec.name in _SKIPPING
        self._base = self._stream.time_base
        self._stretch = float(self._stream.sample_aspect_ratio or 1)  # of a pixel's width over its height
        self._reformatter = load_av().video.reformatter.VideoReformatter()
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
        except load_av().error.FFmpegError:
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
        check_pixels(frame.width, frame.height, self._max_pixels)
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
        check_pixels(width, frame.height, self._max_pixels)
        return (width, frame.height) if placing(frame)[0] else (frame.height, width)

    def write(self, frame, out):
        """Puts a frame into uint8 [H, W, 3], scaled to that."""
        transposed, mirrored, inverted = placing(frame)
        height, width = out.shape[1::-1] if transposed else out.shape[:2]
        (plane,) = self._reformatter.reformat(frame, width, height, "rgb24", interpolation="BILINEAR").planes
        rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[:height, : width * 3]  # which are padded
        if transposed or mirrored or inverted or not out.flags.c_contiguous:
            pixels = rows.reshape(height, width, 3)
            pixels = pixels.swapaxes(0, 1) if transposed else pixels
            out[...] = pixels[:: -1 if inverted else 1, :: -1 if mirrored else 1]
        else:
            out.reshape(height, width * 3)[...] = rows


def placing(frame):
    """(transposed, mirrored, inverted): what a player does to a picture, in this order; a turn is two of them."""
    side = frame.side_data.get("DISPLAYMATRIX")
    if side is None:
        return False, False, False
    a, b, _, c, d, *_ = np.frombuffer(side, np.int32).tolist()  # the pixel at (x, y) is shown at (a x + c y, b x + d y)
    if abs(a) + abs(d) < abs(b) + abs(c):
        return True, c < 0, b < 0
    return False, a < 0, d < 0
