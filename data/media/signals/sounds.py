"""Recordings: the mean of the channels at any rate, and facts by headers or by decoding.

Files come from strangers, as those of images (data/media/signals/images.py).
"""

import contextlib
import io
import itertools
from collections.abc import Iterator

import numpy as np

from data.errors import UserError
from data.media.kinds import Examined, Facts, Undecodable
from data.media.signals.packages import CONTAINERS, describe, load_av, load_soundfile, load_soxr

MAX_SAMPLES = 1 << 28  # of a recording that one call returns
_UNKNOWN = 1 << 62  # samples, with which a header says that it does not know
_STREAMED = 0x7FFF0000  # bytes, the same
_PREROLL = 32  # packets of an MP3 that are decoded before one that is wanted: it may take bits from some of them
_BLOCK_VALUES = 1 << 20  # of all channels of a recording in memory at once


def decode_audio(content: bytes, rate: int, start_s: float = 0.0, seconds: float | None = None) -> np.ndarray:
    """float32 [n] in [-1, 1]: the mean of the channels, `rate` values a second; shorter where the recording ends.

    start_s, seconds: the window that is wanted; None for all from there on.
    """
    with _sound(content) as sound:
        first = max(round(start_s * sound.rate), 0)
        last = None if seconds is None else first + round(seconds * sound.rate)
        most = MAX_SAMPLES / max(rate / sound.rate, 1)
        if sound.samples is not None and min(sound.samples, sound.samples if last is None else last) - first > most:
            raise Undecodable(f"too long: {sound.samples / sound.rate:,.0f} seconds in one piece")
        blocks, count = [], 0
        for block in sound.blocks(first, last):
            blocks.append(block)
            count += len(block)
            if count > most:
                raise Undecodable(f"too long: more than {most / sound.rate:,.0f} seconds in one piece")
        mono = blocks[0] if len(blocks) == 1 else np.concatenate([np.zeros(0, np.float32), *blocks])
        if not np.isfinite(mono).all():
            raise Undecodable("holds values that are no numbers")
        if sound.rate != rate and len(mono):
            mono = load_soxr().resample(mono, sound.rate, rate)
        return np.clip(mono, -1.0, 1.0, dtype=np.float32)


def probe_audio(content):
    with _sound(content) as sound:
        if sound.samples is not None:
            return Facts(rate=float(sound.rate), samples=sound.samples, bytes=len(content))
    return examine_audio(content).facts


def examine_audio(content):
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
    av, soundfile = load_av(), load_soundfile()
    if not content:
        raise Undecodable("empty")
    try:
        if (file := _sound_file(content)) is not None:
            with file:
                yield _SoundFile(file, content)
            return
        with av.open(io.BytesIO(content), container_options=CONTAINERS) as container:
            yield _SoundStream(container, content)
    except (Undecodable, UserError):
        raise
    except av.error.FFmpegError as error:
        raise Undecodable(f"cannot be decoded ({error.strerror or describe(error)})") from None
    except (soundfile.SoundFileError, RuntimeError, ValueError, IndexError, OverflowError, MemoryError) as error:
        raise Undecodable(f"cannot be decoded ({describe(error)})") from None


def _sound_file(content):
    """A recording opened by libsndfile. None for formats that it does not know, and for files of which only decoding tells the length: MP3,
    an Ogg file of several recordings, a header without a length (a file that was written to a pipe)."""
    soundfile = load_soundfile()
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
    """Read by libsndfile, which seeks at once and knows the length; Undecodable for a file that is shorter."""

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
                lead = step * number - count  # what a decoder gives at first and does not belong to the recording
            if step and packet.size:
                count = step * number - lead
                if step * (number + _PREROLL) - lead < self._wanted:
                    continue
            try:
                frames = self._codec.decode(packet if packet.size else None)
            except load_av().error.FFmpegError:
                self._bad += bool(packet.size)
                continue
            for frame in frames:
                yield count, frame
                count += frame.samples

    def _mean_of_channels(self, frame):
        """float32 [samples] of a frame of any format. In one plane: PyAV looks for planes behind the eight that a frame has room for."""
        if frame.layout.nb_channels != self._channels:
            self._channels, self._one_plane = frame.layout.nb_channels, load_av().AudioResampler("flt", frame.layout)
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
