"""How large a medium becomes for a model: from what is known of it without decoding, its patches, and the tokens that they stand for."""

import dataclasses
from typing import ClassVar, NamedTuple

import numpy as np

from data.media.kinds import Kind
from data.media.signals.mel import log_mel
from data.media.signals.patches import grid, patchify, unpatchify

RATE = 16_000
"""Samples a second that recordings are brought to."""
FRAME = 160
"""Samples between two frames of a spectrogram."""


class Cut(NamedTuple):
    """A medium as a model takes it: patches [N, C], uint8 (pixels) or float32 (log-mel), and places int32 [N, A], where each lies."""

    patches: np.ndarray
    places: np.ndarray


@dataclasses.dataclass(frozen=True)
class Shape:
    """What media of a kind share. block: every block x block patches (of audio, block * block places) are one place after the projector.
    latents: such places of a medium, whatever its size; 0 for one a block. inline: those places stand in the row as tokens; else the row
    holds but a marker. class_token: before its patches a medium has a place of its own, of zeros, that lies at -1 along every axis."""

    block: int = 1
    latents: int = 0
    inline: bool = True
    class_token: bool = False
    kind: ClassVar[Kind]
    axes: ClassVar[int]
    """Numbers that say where a patch lies."""
    rate: ClassVar[int] = 1
    """Patches that become one place of the encoder."""

    @property
    def values(self) -> int:
        """Of a patch."""
        raise NotImplementedError

    @property
    def largest(self) -> tuple[int, ...]:
        """The grid of the largest medium."""
        raise NotImplementedError

    @property
    def most(self) -> int:
        """Patches of the largest medium, its class token counted."""
        return int(np.prod(self.largest)) + self.class_token

    def places(self, grids):
        """Patches of grids, class tokens counted: int [..., axes] to int [...]."""
        return np.prod(grids, -1) + self.class_token

    def with_class_token(self, patches: np.ndarray, places: np.ndarray) -> Cut:
        """The cut: patches, behind their class token where the shape has one."""
        if not self.class_token:
            return Cut(patches, places)
        return Cut(np.pad(patches, ((1, 0), (0, 0))), np.pad(places, ((1, 0), (0, 0)), constant_values=-1))

    def charged(self, places):
        """Patches of a row's capacity that a medium takes: with latents that of the largest, so that a row has latents for as many."""
        return np.where(places > 0, self.most, 0) if self.latents else places

    def tokens(self, places):
        """Of a row, that so many patches take."""
        return self.projected(places) if self.inline else np.zeros_like(places)

    def projected(self, places):
        """Places after the projector, of so many patches."""
        return np.where(places > 0, self.latents, 0) if self.latents else places // (self.rate * self.block**2)


@dataclasses.dataclass(frozen=True)
class ImageShape(Shape):
    """Pictures of up to rows x columns patches of patch x patch pixels. square: all are scaled to that; else each keeps its aspect, and is
    never made larger."""

    patch: int = 16
    rows: int = 14
    columns: int = 14
    square: bool = False
    kind = "image"
    axes = 2

    @property
    def values(self):
        return 3 * self.patch**2

    @property
    def largest(self):
        return self.rows, self.columns

    def grids(self, widths, heights):
        """int [n, 2]: rows and columns of patches of pictures of these sizes."""
        return _fit(self, widths, heights)

    def cut(self, pixels_HWC, grid_2) -> Cut:
        """pixels: uint8, the grid's rows and columns times `patch`."""
        return self.with_class_token(patchify(pixels_HWC[None], self.patch, self.block)[0], grid(grid_2[0], grid_2[1], self.block))


@dataclasses.dataclass(frozen=True)
class VideoShape(Shape):
    """Clips of up to `times` tubelets along time, each of `frames` frames, `fps` frames a second; pictures as of ImageShape."""

    frames: int = 2
    fps: float = 4.0
    times: int = 4
    patch: int = 16
    rows: int = 7
    columns: int = 7
    square: bool = False
    kind = "video"
    axes = 3

    @property
    def values(self):
        return 3 * self.frames * self.patch**2

    @property
    def largest(self):
        return self.times, self.rows, self.columns

    def grids(self, widths, heights, seconds):
        """int [n, 3]: times, rows and columns of tubelets. A clip that is too short for one tubelet shows its frames twice."""
        times = np.clip(np.asarray(seconds) * self.fps // self.frames, 1, self.times).astype(np.int64)
        return np.concatenate([times[:, None], _fit(self, widths, heights)], -1)

    def cut(self, pixels_FHWC, grid_3) -> Cut:
        """pixels: uint8, `frames` times the grid's times, and as of an image."""
        times, rows, columns = grid_3
        patches = patchify(pixels_FHWC, self.patch, self.block)
        tubelets = patches.reshape(times, self.frames, *patches.shape[1:]).swapaxes(1, 2)
        where = grid(rows, columns, self.block)
        places = [np.repeat(np.arange(times, dtype=np.int32), len(where))[:, None], np.tile(where, (times, 1))]
        return self.with_class_token(tubelets.reshape(times * len(where), -1), np.concatenate(places, -1))


@dataclasses.dataclass(frozen=True)
class AudioShape(Shape):
    """Recordings of up to `times` places of 20 ms, each made of two frames of a log-mel spectrogram."""

    times: int = 500
    bands: int = 80
    kind = "audio"
    axes = 1
    rate = 2

    @property
    def values(self):
        return self.bands

    @property
    def largest(self):
        return (2 * self.times,)

    @property
    def seconds(self) -> float:
        """Of the longest recording."""
        return 2 * self.times * FRAME / RATE

    def grids(self, seconds):
        """int [n, 1]: frames of recordings, in whole tokens: what is missing at the end is silence."""
        unit = 2 * self.block**2
        frames = np.ceil(np.asarray(seconds) * RATE / FRAME / unit).astype(np.int64) * unit
        return np.clip(frames, unit, 2 * self.times // unit * unit)[:, None]

    def cut(self, sound_N, grid_1) -> Cut:
        """sound: float32 at RATE; what is too long is left out, what is missing is silence."""
        frames = int(grid_1[0])
        sound = np.zeros(frames * FRAME, np.float32)
        sound[: len(sound_N)] = sound_N[: len(sound)]
        return Cut(log_mel(sound), np.arange(frames, dtype=np.int32)[:, None])


def frames_of(shape: ImageShape | VideoShape, cut: Cut) -> np.ndarray:
    """uint8 [F, H, W, 3]: the picture, or the frames of the clip, that was cut."""
    rows, columns = (cut.places[:, -2:].max(0) + 1).tolist()
    pixels = (
        cut.patches[int(shape.class_token) :].reshape(-1, rows * columns, getattr(shape, "frames", 1), 3 * shape.patch**2).swapaxes(1, 2)
    )
    return unpatchify(pixels.reshape(-1, rows * columns, 3 * shape.patch**2), rows, columns, shape.patch, shape.block)


def _fit(shape, widths, heights):
    """Rows and columns of patches, in whole blocks: the aspect kept as well as they allow."""
    widths, heights = (np.asarray(x, np.float64) for x in (widths, heights))
    if shape.square:
        return np.broadcast_to(np.array([shape.rows, shape.columns]), (len(widths), 2))
    unit = shape.patch * shape.block
    scale = np.minimum(np.minimum(shape.rows * shape.patch / heights, shape.columns * shape.patch / widths), 1.0)
    sides = np.stack([heights * scale, widths * scale], -1) / unit
    most = np.array([shape.rows, shape.columns]) // shape.block
    return (np.clip(np.rint(sides), 1, most) * shape.block).astype(np.int64)
