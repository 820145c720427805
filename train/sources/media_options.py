"""The options of learning from media: which data, which rows, which losses. Nothing heavy is imported here."""

import dataclasses
import os
from collections.abc import Callable
from typing import ClassVar, Literal

from data.errors import UserError
from data.media.signals.augment_config import Augment
from train.kinds import Data, Objective, check_range


@dataclasses.dataclass(frozen=True)
class MediaData(Data):
    """Rows of samples with media; the encoders of the model say how large those become."""

    rows: ClassVar[str] = "media"

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

    def with_paths(self, change: Callable[[str], str]) -> "MediaData":
        tokenizer = change(self.tokenizer) if os.path.exists(self.tokenizer) else self.tokenizer
        moved = super().with_paths(change)
        assert isinstance(moved, MediaData)
        return dataclasses.replace(moved, tokenizer=tokenizer)

    def __post_init__(self):
        check_range("data.", self, 0, "images", "videos", "audios", "max_damaged")
        check_range("data.", self, -1, "workers")
        if not 0 <= self.media_dropout <= 1:
            raise ValueError(f"data.media_dropout is {self.media_dropout}; it must be from 0 to 1")


Task = Literal["text", "image", "video", "audio", "caption", "draw", "film", "play"]


@dataclasses.dataclass(frozen=True)
class WorldScenes(MediaData):
    """The embedded world of shapes that move and sound (data/media/world.py), rendered on the spot."""

    home: ClassVar[str] = "train.sources.media:WorldDataset"

    tasks: tuple[Task, ...] = ("text", "image", "video", "audio", "caption")
    """What samples ask about (text, image, video, audio, caption), or ask to write after a description (draw, film, play), in turns."""
    scenes: int = 1 << 16
    """Samples of an epoch."""
    validation: int = 1024
    """Validation scenes for each task, and as many again with pairs of shape and colour that training never shows."""


@dataclasses.dataclass(frozen=True)
class MediaShards(MediaData):
    """What `omnia prepare images|video|audio|interleaved` made."""

    home: ClassVar[str] = "train.sources.media:ShardDataset"

    shards: tuple[str, ...] = ()
    """Folders (paths, or URLs such as gs://...). Several are mixed."""
    weights: tuple[float, ...] = ()
    """Share of rows from each of `shards`, in any unit. Empty: by their counts of rows."""
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


@dataclasses.dataclass(frozen=True)
class MediaLM(Objective):
    """Next-token prediction of what is learned of each sample, its media given: captions, answers (L_text + L_image + L_video + L_audio).

    A term for each modality, over the tokens about it.
    """

    home: ClassVar[str] = "train.objectives.media.media_lm:bind"
    reads: ClassVar[tuple[str, ...]] = ("media",)
    generates: ClassVar[bool] = True

    text_weight: float = 1.0
    """Weight of the mean loss over tokens that are about no medium."""
    image_weight: float = 1.0
    """Weight of the mean loss over tokens about an image."""
    video_weight: float = 1.0
    """Weight of the mean loss over tokens about a clip."""
    audio_weight: float = 1.0
    """Weight of the mean loss over tokens about a recording."""

    def __post_init__(self):
        check_range("objective.", self, 0, "text_weight", "image_weight", "video_weight", "audio_weight")

    def weight(self, modality: str) -> float:
        return getattr(self, f"{modality}_weight")

    def missing(self, learned: int, labelled: bool, counts: dict[str, int]) -> str:
        """What no sample of a split has and all would need, "" for nothing. learned: samples with something to learn. labelled: any has a
        class. counts: media of each kind."""
        return "" if learned else "a text to learn (a caption, an answer) or a class"


Medium = Literal["image", "video", "audio"]


@dataclasses.dataclass(frozen=True)
class Pairing(Objective):
    """Two sides of a sample whose vectors shall lie near each other in a shared space, and those of different samples apart."""

    reads: ClassVar[tuple[str, ...]] = ("media",)

    left: Medium = "image"
    """Medium of the left tower, which is the model's encoder of that kind."""
    right: Literal["text", "image", "video", "audio"] = "text"
    """Input of the right tower; text is the learned text of a sample, read by the model's decoder. Equal texts are not told apart."""
    width: int = 128
    """Width of the shared space."""
    loss: Literal["sigmoid", "softmax"] = "sigmoid"
    """Contrastive loss: sigmoid as in SigLIP (Zhai et al. 2023), or softmax (InfoNCE) as in CLIP (Radford et al. 2021)."""

    def __post_init__(self):
        check_range("objective.", self, 1, "width")
        if self.left == self.right:
            raise ValueError(f"objective.left and right are both {self.left}: there would be nothing to align")

    @property
    def pair(self) -> tuple[str, str]:
        """What is aligned."""
        return self.left, self.right

    def missing(self, learned: int, labelled: bool, counts: dict[str, int]) -> str:
        return ""

    @property
    def unit(self) -> Literal["token", "example", "batch"]:
        return "batch"


@dataclasses.dataclass(frozen=True)
class Alignment(Pairing):
    """Contrastive learning alone."""

    home: ClassVar[str] = "train.objectives.media.alignment:bind"


@dataclasses.dataclass(frozen=True)
class AlignedLM(MediaLM, Pairing):
    """Next-token prediction and contrastive learning in one loss, with the same encoders and decoder (after CoCa, Yu et al. 2022)."""

    home: ClassVar[str] = "train.objectives.media.aligned_lm:bind"

    alignment_weight: float = 1.0
    """Weight of the contrastive loss."""

    def __post_init__(self):
        MediaLM.__post_init__(self)
        Pairing.__post_init__(self)
        check_range("objective.", self, 0, "alignment_weight")


@dataclasses.dataclass(frozen=True)
class MediaClassification(Objective):
    """The class of each medium of a kind."""

    home: ClassVar[str] = "train.objectives.media.classification:bind"
    reads: ClassVar[tuple[str, ...]] = ("media",)

    medium: Medium = "image"
    """Medium to classify, with the encoder of that kind."""
    classes: int = 0
    """Number of classes. 0: as many as the shards name."""
    smoothing: float = 0.0
    """Label smoothing: share of each label spread over all classes in training, 0 to below 1."""
    mixup: float = 0.0
    """Alpha of mixup (Zhang et al. 2018), on the device. 0: none."""
    cutmix: float = 0.0
    """Alpha of CutMix (Yun et al. 2019), on the device. 0: none. With mixup too, each batch takes one of them by chance."""

    def missing(self, learned: int, labelled: bool, counts: dict[str, int]) -> str:
        return "a class" if not labelled else "" if counts[self.medium] else f"{self.medium} in it"

    def completed(self, sources: list) -> "MediaClassification":
        if self.classes:
            return self
        classes = max(len(getattr(one.source, "classes", ())) for one in sources)
        if not classes:
            raise UserError(
                "objective: the data has no classes", "Prepare files in folders, each named by a class, or choose another objective."
            )
        return dataclasses.replace(self, classes=classes)

    def __post_init__(self):
        check_range("objective.", self, 0, "classes", "mixup", "cutmix")
        check_range("objective.", self, 0, "smoothing", high=1)

    @property
    def unit(self) -> Literal["token", "example", "batch"]:
        return "batch" if self.mixup > 0 or self.cutmix > 0 else "example"


@dataclasses.dataclass(frozen=True)
class HiddenPatches(Objective):
    """What is hidden of pictures or clips is predicted from the rest (masked patch modelling)."""

    home: ClassVar[str] = "train.objectives.media.hidden_patches:bind"
    reads: ClassVar[tuple[str, ...]] = ("media",)

    medium: Literal["image", "video"] = "image"
    """Medium whose encoder is trained."""
    rate: float = 0.6
    """Share of patches, or of a clip's tubes, that are hidden, above 0, at most 1."""

    @property
    def unit(self) -> Literal["token", "example", "batch"]:
        return "example"

    def missing(self, learned: int, labelled: bool, counts: dict[str, int]) -> str:
        return "" if counts[self.medium] else f"{self.medium} in it"

    def __post_init__(self):
        if not 0 < self.rate <= 1:
            raise ValueError(f"objective.rate is {self.rate}; it must be above 0, and at most 1")


@dataclasses.dataclass(frozen=True)
class Codebook(Objective):
    """A tokenizer of patches or frames into codes (VQ-VAE, van den Oord et al. 2017)."""

    home: ClassVar[str] = "train.objectives.media.codebook:bind"
    of_patches: ClassVar[bool] = True
    """Reads patches as they are, without a class token beside them."""
    reads: ClassVar[tuple[str, ...]] = ("media",)

    medium: Medium = "image"
    """Medium to tokenize."""
    codes: int = 256
    """Size of the codebook."""
    code_dim: int = 16
    """Width of a code's vector."""
    hidden_dim: int = 128
    """Width of the layers before and after it."""
    commitment: float = 0.25
    """Coefficient of the term that keeps latents near their codes."""

    @property
    def unit(self) -> Literal["token", "example", "batch"]:
        return "example"

    def missing(self, learned: int, labelled: bool, counts: dict[str, int]) -> str:
        return "" if counts[self.medium] else f"{self.medium} in it"

    def __post_init__(self):
        check_range("objective.", self, 1, "codes", "code_dim", "hidden_dim")
        check_range("objective.", self, 0, "commitment")
