"""Videos without faces, number plates, voices, and what else the file says: frame by frame, so that any length fits in memory."""

import collections
import contextlib
import os
import tempfile
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

import numpy as np

from data.anonymize.found import Box, Found, Hit, is_inside
from data.anonymize.pictures import MOST_PIXELS, cover_box, detect_all
from data.anonymize.surrogates import Key
from data.anonymize.voices import Voice, drawn
from data.files import storage
from data.media.kinds import Undecodable
from data.media.signals.packages import CONTAINERS, describe, load_av
from data.media.signals.videos import placing

VIDEOS = {
    ".mp4": ("mp4", "libx264", "aac"),
    ".mov": ("mov", "libx264", "aac"),
    ".mkv": ("matroska", "libx264", "aac"),
    ".webm": ("webm", "libvpx-vp9", "libopus"),
}
"""Of each ending, the container and the codecs that are written."""
MEMORY = 3
"""Frames before and after one where something is found that are covered in the same place: detectors lose a face now and then."""
RATE = 48_000
"""Of the sound that is written."""
GAP_S = 1.0
"""What is found again within so many seconds is the same entry of a review."""


def cover_file(path: str, output: str, suffix: str, key: Key, name: str) -> tuple[dict[str, int], list[Found]]:
    """`cover_video` of a file to another, which appears when it is whole."""
    handle, temporary = tempfile.mkstemp(dir=os.path.dirname(output) or ".", prefix=os.path.basename(output) + ".")
    try:
        with os.fdopen(handle, "w+b") as file:
            os.fchmod(handle, 0o644)
            with open(path, "rb") as source:
                found = cover_video(source, file, suffix, key, name)
            file.flush()
            os.fsync(handle)
        os.replace(temporary, output)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
    storage.sync_folder(os.path.dirname(output) or ".")
    return found


def cover_video(source: BinaryIO, output: BinaryIO, suffix: str, key: Key, name: str) -> tuple[dict[str, int], list[Found]]:
    """Write a video with its first picture and its first sound, in another voice; subtitles and all else are left out.

    suffix: of VIDEOS, what is written. Returns how many boxes were covered of each kind, in all frames, and voices; and what was found in
    which stretches. Undecodable for a video that cannot be read.
    """
    av, covered = load_av(), _Covered()
    try:
        how = VIDEOS[suffix][0]
        with av.open(source, container_options=CONTAINERS) as given, av.open(output, "w", format=how) as made:
            heard = _convert(given, made, suffix, drawn(key, name), covered)
    except av.error.FFmpegError as error:
        raise Undecodable(f"is no video, or a damaged one ({error.strerror or describe(error)})") from None
    except (ValueError, IndexError, OverflowError, MemoryError) as error:
        raise Undecodable(f"is no video, or a damaged one ({describe(error)})") from None
    found = covered.stretches.all()
    if heard is not None:
        covered.counts["VOICE"] += 1
        found.append(Found("VOICE", True, seconds=heard))
    return dict(+covered.counts), found


def _convert(given: Any, made: Any, suffix: str, voice: tuple[float, float], covered: "_Covered") -> tuple[float, float] | None:
    """The first and the last second of the sound; None where there is none."""
    av = load_av()
    if not given.streams.video:
        raise Undecodable("has no picture")
    pictures = given.streams.video[0]
    if pictures.codec_context is None or pictures.codec_context.width * pictures.codec_context.height > MOST_PIXELS:
        raise Undecodable(f"has pictures of an unknown kind, or of more than {MOST_PIXELS:,} pixels")
    sounds = next((one for one in given.streams.audio if one.codec_context is not None), None)
    _, video_codec, audio_codec = VIDEOS[suffix]
    frames = _Frames(made.add_stream(video_codec, rate=pictures.average_rate or 25, options={"crf": "20"}), pictures)
    sound = _Sound(made.add_stream(audio_codec, rate=RATE, layout="mono"), av, voice) if sounds is not None else None
    last = 0.0
    for packet in given.demux(*([pictures] if sounds is None else [pictures, sounds])):
        for frame in packet.decode():
            if isinstance(frame, av.AudioFrame):
                assert sound is not None
                made.mux(sound.feed(frame))
                continue
            if frame.is_corrupt or frame.pts is None:
                raise Undecodable("holds a damaged frame")
            last = max(last, float(frame.time))
            for pixels, pts in covered.feed(upright(frame), frame.pts, float(frame.time)):
                made.mux(frames.encoded(pixels, pts))
    for pixels, pts in covered.finish():
        made.mux(frames.encoded(pixels, pts))
    if not frames.count:
        raise Undecodable("has no frame")
    told = float(given.duration or 0) / 1e6 - float(given.start_time or 0) / 1e6
    if last + 2.0 < told * 0.98:
        raise Undecodable(f"breaks off after {last:.1f} of {told:.1f} seconds")
    made.mux(frames.encoded(None, 0))
    if sound is None:
        return None
    made.mux(sound.finish())
    return sound.seconds


def upright(frame: Any) -> np.ndarray:
    """uint8 [H, W, 3]: as a player shows it, which what is written says no more."""
    pixels = frame.to_ndarray(format="rgb24")
    transposed, mirrored, inverted = placing(frame)
    pixels = pixels.swapaxes(0, 1) if transposed else pixels
    return np.ascontiguousarray(pixels[:: -1 if inverted else 1, :: -1 if mirrored else 1])


class _Frame:
    """One that waits for what is found in those behind it."""

    def __init__(self, pixels: np.ndarray, pts: int, time: float, seen: dict[str, list[Hit]]):
        self.pixels, self.pts, self.time, self.seen = pixels, pts, time, seen
        self.boxes = [hit.box for hits in seen.values() for hit in hits if hit.covered]


class _Covered:
    """Frames with what is found in them and in their neighbours covered, a few frames late."""

    def __init__(self) -> None:
        self.counts: collections.Counter[str] = collections.Counter()
        self.stretches = _Stretches()
        self._waiting: collections.deque[_Frame] = collections.deque()
        self._boxes: collections.deque[list[Box]] = collections.deque(maxlen=2 * MEMORY + 1)

    def feed(self, pixels: np.ndarray, pts: int, time: float) -> Iterator[tuple[np.ndarray, int]]:
        """A frame, and its second."""
        if self._waiting and self._waiting[0].pixels.shape != pixels.shape:
            raise Undecodable("has frames of several sizes")
        grey = (pixels @ np.array([0.299, 0.587, 0.114], np.float32)).round().astype(np.uint8)
        frame = _Frame(pixels, pts, time, detect_all(grey))
        self._waiting.append(frame)
        self._boxes.append(frame.boxes)
        if len(self._waiting) > MEMORY:
            yield self._first()

    def finish(self) -> Iterator[tuple[np.ndarray, int]]:
        while self._waiting:
            if len(self._boxes) > len(self._waiting) + MEMORY:
                self._boxes.popleft()
            yield self._first()

    def _first(self) -> tuple[np.ndarray, int]:
        frame = self._waiting.popleft()
        near = list(dict.fromkeys(box for boxes in self._boxes for box in boxes))
        for box in near:
            cover_box(frame.pixels, box)
        for kind, hits in frame.seen.items():
            self.counts[kind] += sum(hit.covered for hit in hits)
            # What is covered for its neighbours' sake needs nobody to look at it.
            self.stretches.add(kind, [hit for hit in hits if hit.covered or not any(is_inside(hit.box, box) for box in near)], frame.time)
        return frame.pixels, frame.pts


class _Stretches:
    """What is found in frames, put together to stretches of time."""

    def __init__(self) -> None:
        self._ended: list[Found] = []
        self._open: dict[tuple[str, bool], tuple[Hit, float, float]] = {}  # the best of it, its first and its last second

    def add(self, kind: str, hits: list[Hit], time: float) -> None:
        """What is seen of a kind in one frame."""
        for covered in (True, False):
            here = [hit for hit in hits if hit.covered == covered]
            if not here:
                continue
            best, first, last = self._open.get((kind, covered), (here[0], time, time))
            if time - last > GAP_S:
                self._end(kind, covered)
                best, first = here[0], time
            self._open[kind, covered] = max([best, *here], key=lambda hit: hit.score), first, time

    def all(self) -> list[Found]:
        """In the order of time."""
        for kind, covered in list(self._open):
            self._end(kind, covered)
        return sorted(self._ended, key=lambda found: (found.seconds, found.kind))

    def _end(self, kind: str, covered: bool) -> None:
        best, first, last = self._open.pop((kind, covered))
        self._ended.append(Found(kind, covered, best.score, best.box, (round(first, 2), round(last, 2))))


class _Frames:
    """The picture that is written, at the times of the one that was read."""

    def __init__(self, stream: Any, given: Any):
        self._stream, self._given, self.count = stream, given, 0
        self._stream.codec_context.thread_count = 1  # what x264 writes depends on how many they are

    def encoded(self, pixels: np.ndarray | None, pts: int) -> Iterable[Any]:
        """Packets of the next frame; of None, the last ones."""
        if pixels is None:
            return self._stream.encode(None)
        even = np.pad(pixels, ((0, pixels.shape[0] % 2), (0, pixels.shape[1] % 2), (0, 0)), mode="edge")
        if not self.count:
            self._stream.height, self._stream.width = even.shape[:2]
            self._stream.pix_fmt = "yuv420p"
            self._stream.codec_context.time_base = self._given.time_base
        self.count += 1
        frame = load_av().VideoFrame.from_ndarray(even, format="rgb24")
        frame.pts, frame.time_base = pts, self._given.time_base
        return self._stream.encode(frame)


class _Sound:
    """The sound that is written: one channel, in another voice."""

    def __init__(self, stream: Any, av: Any, voice: tuple[float, float]):
        self._stream, self._av = stream, av
        self._resampler = av.AudioResampler("flt", "mono", RATE)
        self._voice = Voice(RATE, *voice)
        self._first = self._place = -1  # of the next sample; not known before the first frame

    @property
    def seconds(self) -> tuple[float, float]:
        """The first and the last of what was written."""
        return round(max(self._first, 0) / RATE, 2), round(max(self._place, 0) / RATE, 2)

    def feed(self, frame: Any) -> list[Any]:
        if self._place < 0:
            self._first = self._place = max(round(float(frame.time or 0.0) * RATE), 0)
        frame.pts = None
        pieces = [one.to_ndarray().ravel() for one in self._resampler.resample(frame)]
        return self._encoded(self._voice.feed(np.concatenate([np.zeros(0, np.float32), *pieces])))

    def finish(self) -> list[Any]:
        pieces = [one.to_ndarray().ravel() for one in self._resampler.resample(None)]
        rest = [self._voice.feed(np.concatenate([np.zeros(0, np.float32), *pieces])), self._voice.finish()]
        return self._encoded(np.concatenate(rest)) + list(self._stream.encode(None))

    def _encoded(self, samples: np.ndarray) -> list[Any]:
        packets: list[Any] = []
        if len(samples):
            frame = self._av.AudioFrame.from_ndarray(samples[None], format="flt", layout="mono")
            frame.sample_rate, frame.pts = RATE, self._place
            self._place += len(samples)
            packets += self._stream.encode(frame)
        return packets
