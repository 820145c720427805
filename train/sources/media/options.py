"""The options of data with media. Nothing heavy is imported here."""

import dataclasses
import os
from collections.abc import Callable
from typing import ClassVar, Literal, Self

from data.media.signals.augment_config import Augment
from train.kinds import Data, check_range


@dataclasses.dataclass(frozen=True)
class MediaData(Data):
    """Rows of samples with media; the encoders of the model say how large those become."""

    rows: ClassVar[str] = "media"
    path_fields = (*Data.path_fields, "tokenizer")

    tokenizer: str = "byte"
    """byte, a file or directory as for `omnia prepare text`, or an output of `omnia prepare codes`. Ignored with `start`: that run's is
    used."""
    images: int = 1
    """Capacity of a row in images of the largest size; of smaller ones more fit."""
    videos: int = 1
    """Capacity of a row in clips of the largest size."""
    audios: int = 1
    """Capacity of a row in recordings of the largest size."""
    prefix: bool = True
    """Bidirectional attention before the first learned token of a sample. False: only among the places of one medium."""
    media_dropout: float = 0.0
    """Share of training samples whose media are hidden from the model, 0 to 1, so that it also learns to answer without."""
    max_damaged: int = 0
    """Unreadable samples tolerated as empty places before training stops."""
    workers: int = -1
    """Processes that decode or render; they do not change the rows. 0: a thread of the training process. -1: beside an accelerator as many
    as there are spare cores; on a CPU, none."""

    def with_paths(self, change: Callable[[str], str]) -> Self:
        moved = super().with_paths(change)
        return moved if os.path.exists(self.tokenizer) else dataclasses.replace(moved, tokenizer=self.tokenizer)

    def without_files(self) -> Self:
        return dataclasses.replace(super().without_files(), tokenizer="byte")

    def __post_init__(self):
        check_range("data.", self, 0, "images", "videos", "audios", "max_damaged")
        check_range("data.", self, -1, "workers")
        if not 0 <= self.media_dropout <= 1:
            raise ValueError(f"data.media_dropout is {self.media_dropout}; it must be from 0 to 1")


Task = Literal["text", "image", "video", "audio", "caption", "draw", "film", "play"]


@dataclasses.dataclass(frozen=True)
class WorldScenes(MediaData):
    """The embedded world of shapes that move and sound (data/media/world.py), rendered on the spot."""

    home: ClassVar[str] = "train.sources.media.datasets:WorldDataset"

    tasks: tuple[Task, ...] = ("text", "image", "video", "audio", "caption")
    """What samples ask about (text, image, video, audio, caption), or ask to write after a description (draw, film, play), in turns."""
    scenes: int = 1 << 16
    """Samples of an epoch."""
    validation: int = 1024
    """Validation scenes for each task, and as many again with pairs of shape and colour that training never shows."""


@dataclasses.dataclass(frozen=True)
class MediaShards(MediaData):
    """What `omnia prepare images|video|audio|interleaved` made."""

    home: ClassVar[str] = "train.sources.media.datasets:ShardDataset"
    how_to_get: ClassVar[str] = "Prepare some with `omnia prepare images|video|audio|interleaved`, then give the folder: --data.shards DIR."

    shards: tuple[str, ...] = ()
    """Folders (paths, or URLs such as gs://...). Several are mixed."""
    weights: tuple[float, ...] = ()
    """Proportions of rows from each of `shards`. Empty: by their numbers of rows."""
    square: bool = True
    """Scale pictures and clips to the encoder's whole grid. False: keep their aspect, and small ones their size."""
    fps: float = 4.0
    """Frames per second taken from clips."""
    question: str = ""
    """Text between a medium and its class name, for samples with a class and no text."""
    write: tuple[Literal["image", "video", "audio"], ...] = ()
    """Media to generate too: each of `shards` that has them comes once more, its texts as input and the medium as the target. `weights`
    then lists the sources that are read first, then those that are written."""
    augment: Augment = Augment()
    """Random changes to media in training."""

    def __post_init__(self):
        super().__post_init__()
        check_range("data.", self, 0.01, "fps")
