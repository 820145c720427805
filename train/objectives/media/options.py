"""The options of objectives on media. Nothing heavy is imported here."""

import dataclasses
from typing import ClassVar, Literal

from data.errors import UserError
from train.kinds import Objective, check_range

Medium = Literal["image", "video", "audio"]


@dataclasses.dataclass(frozen=True)
class OnMedia(Objective):
    """What objectives on rows with media have in common."""

    reads: ClassVar[tuple[str, ...]] = ("media",)

    def missing(self, learned: int, labelled: bool, counts: dict[str, int]) -> str:
        """What no sample of a split has and all would need, "" for nothing. learned: samples with something to learn. labelled: any has a
        class. counts: media of each kind."""
        return ""


@dataclasses.dataclass(frozen=True)
class OfOneMedium(OnMedia):
    """An objective on all media of one kind, each an example."""

    medium: Medium = "image"
    """Medium whose encoder is trained."""

    @property
    def unit(self) -> Literal["token", "example", "batch"]:
        return "example"

    def missing(self, learned: int, labelled: bool, counts: dict[str, int]) -> str:
        return "" if counts[self.medium] else f"{self.medium} in it"


@dataclasses.dataclass(frozen=True)
class MediaLM(OnMedia):
    """Next-token prediction of what is learned of each sample, its media given: captions, answers (L_text + L_image + L_video + L_audio).

    A term for each modality, over the tokens about it.
    """

    home: ClassVar[str] = "train.objectives.media.media_lm:bind"
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
        return "" if learned else "a text to learn (a caption, an answer) or a class"


@dataclasses.dataclass(frozen=True)
class Pairing(OnMedia):
    """Two sides of a sample whose vectors shall lie near each other in a shared space, and those of different samples apart."""

    left: Medium = "image"
    """Medium of the left tower, which is the model's encoder of that kind."""
    right: Literal["text", "image", "video", "audio"] = "text"
    """Input of the right tower; text is the learned text of a sample, read by the model's decoder. Equal texts are not told apart."""
    width: int = 128
    """Width of the shared space."""
    loss: Literal["sigmoid", "softmax"] = "sigmoid"
    """Contrastive loss: sigmoid as in SigLIP (Zhai et al. 2023), or softmax (InfoNCE) as in CLIP (Radford et al. 2021)."""
    text_pool: Literal["mean", "last"] = "mean"
    """What stands for a text: the mean of its tokens' hidden states, or that of its last one, its end (CLIP)."""
    text_start: int = -1
    """Id of a token that the text tower reads before each text (CLIP has one). -1: none."""

    def __post_init__(self):
        check_range("objective.", self, 1, "width")
        check_range("objective.", self, -1, "text_start")
        if self.right != "text" and (self.text_pool != "mean" or self.text_start >= 0):
            raise ValueError(f"objective.text_pool and text_start are for texts, and objective.right is {self.right}: leave them out")
        if self.left == self.right:
            raise ValueError(f"objective.left and right are both {self.left}: there would be nothing to align")

    @property
    def pair(self) -> tuple[str, str]:
        """What is aligned."""
        return self.left, self.right

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
class MediaClassification(OfOneMedium):
    """The class of each medium of a kind."""

    home: ClassVar[str] = "train.objectives.media.classification:bind"

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
        return super().missing(learned, labelled, counts) if labelled else "a class"

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
class HiddenPatches(OfOneMedium):
    """What is hidden of pictures or clips is predicted from the rest (masked patch modelling)."""

    home: ClassVar[str] = "train.objectives.media.hidden_patches:bind"

    medium: Literal["image", "video"] = "image"
    """Medium whose encoder is trained."""
    rate: float = 0.6
    """Share of patches, or of a clip's tubes, that are hidden, above 0, at most 1."""

    def __post_init__(self):
        if not 0 < self.rate <= 1:
            raise ValueError(f"objective.rate is {self.rate}; it must be above 0, and at most 1")


@dataclasses.dataclass(frozen=True)
class Codebook(OfOneMedium):
    """A tokenizer of patches or frames into codes (VQ-VAE, van den Oord et al. 2017)."""

    home: ClassVar[str] = "train.objectives.media.codebook:bind"
    of_patches: ClassVar[bool] = True
    """Reads patches as they are, without a class token beside them."""

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

    def __post_init__(self):
        check_range("objective.", self, 1, "codes", "code_dim", "hidden_dim")
        check_range("objective.", self, 0, "commitment")
