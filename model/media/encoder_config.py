"""The shapes of encoders of images, video and audio, as plain values. Imports nothing heavy."""

import dataclasses
from typing import ClassVar, Literal


@dataclasses.dataclass(frozen=True)
class Projection:
    """How hidden places of an encoder become inputs of a decoder."""

    method: Literal["linear", "mlp", "resampler"] = "mlp"
    """One linear layer, two with a GELU between (LLaVA-1.5, Liu et al. 2023), or learned queries that attend to the places (Flamingo,
    Alayrac et al. 2022)."""
    shuffle: int = 1
    """Pixel shuffle: each s x s block of places becomes one, s * s times as wide. 1: none."""
    latents: int = 64
    """Of a resampler: outputs for each image, clip or recording, whatever its size."""
    layers: int = 2
    """Of a resampler: blocks of attention and feed-forward."""

    def __post_init__(self):
        for name in ("shuffle", "latents", "layers"):
            if getattr(self, name) < 1:
                raise ValueError(f"projector.{name} is {getattr(self, name)}; it must be positive")
        if self.method == "resampler" and self.shuffle > 1:
            raise ValueError("projector.shuffle makes fewer places, and a resampler chooses their number itself: use one of them")


@dataclasses.dataclass(frozen=True)
class EncoderConfig:
    """What encoders of all kinds share: a Transformer of pre-norm blocks (LayerNorm, biases) that sees both ways."""

    num_layers: int = 6
    """Transformer blocks."""
    embed_dim: int = 192
    """Width of the residual stream."""
    num_heads: int = 3
    """Heads of each attention layer; divides embed_dim."""
    mlp_dim: int = 0
    """Width of the feed-forward layer. 0: 4 * embed_dim."""
    norm_epsilon: float = 1e-6
    """Added to the variance before its square root, in every LayerNorm."""
    activation: Literal["gelu", "gelu_tanh", "quick_gelu"] = "gelu"
    """Of the feed-forward layers: the exact GELU (erf), its approximation, or CLIP's."""
    positions: Literal["learned", "factorised"] = "factorised"
    """A learned vector for each place of the grid, or one for each number along each axis, added up (NaViT, Dehghani et al. 2023)."""
    pool: Literal["mean", "attention", "token"] = "mean"
    """What stands for a whole image, clip or recording: the mean of its places, one query that attends to them (Zhai et al. 2022), or a
    class token, which is a place of its own, numbered -1 along every axis (Dosovitskiy et al. 2021, eq. 1)."""
    projector: Projection = Projection()
    """The way into a decoder."""
    dropout: float = 0.0
    """Fraction of elements dropped in training, after the embedding and after each sub-layer."""
    init_std: float = 0.02
    """Standard deviation of initial weights of the blocks, as in a decoder."""
    scan: bool = False
    """Compile one block (or one of each kind) and scan it over the layers. Same checkpoint."""
    remat: Literal["none", "full", "dots", "sublayers"] = "none"
    """What the backward pass recomputes, as in a decoder."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Type of the matrix products. auto: bfloat16 on accelerators, float32 on CPU."""
    kernel: Literal["auto", "reference", "xla", "splash", "triton", "cudnn"] = "auto"
    """Attention kernel. auto: the fastest for the device and the mask."""

    kind: ClassVar[str] = ""
    """What is encoded."""
    axes: ClassVar[str] = ""
    """Names of the numbers that say where a place lies, in their order: t time, y row, x column."""

    def __post_init__(self):
        for name in ("num_layers", "embed_dim", "num_heads", *self._sizes()):
            if getattr(self, name) <= 0:
                raise ValueError(f"{self.kind}.{name} is {getattr(self, name)}; it must be positive")
        if self.norm_epsilon <= 0:
            raise ValueError(f"{self.kind}.norm_epsilon is {self.norm_epsilon}; it must be positive")
        if self.embed_dim % self.num_heads:
            raise ValueError(f"{self.kind}.embed_dim {self.embed_dim} is not a multiple of {self.kind}.num_heads {self.num_heads}")
        if self.pool == "token" and self.projector.shuffle > 1:
            raise ValueError(f"{self.kind}.pool token adds a place that no block has: leave out projector.shuffle, or pool otherwise")

    def _sizes(self) -> tuple[str, ...]:
        """Fields of a kind that must be positive."""
        return ()

    @property
    def patch_values(self) -> int:
        """Numbers that one place of the input holds."""
        raise NotImplementedError

    @property
    def mlp_width(self) -> int:
        return self.mlp_dim or 4 * self.embed_dim

    @property
    def extent(self) -> tuple[int, ...]:
        """Places along each of the axes that positions are learned for."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class ImageEncoder(EncoderConfig):
    """A vision Transformer (Dosovitskiy et al. 2021) over patches of images of any aspect."""

    patch: int = 16
    """Rows and columns of pixels that make one place."""
    rows: int = 16
    """Rows of patches of the tallest image."""
    columns: int = 16
    """Columns of patches of the widest image."""
    stem: Literal["linear", "convolutions"] = "linear"
    """How a patch becomes a vector. Overlapping convolutions over the whole picture need fewer images and steps than one linear layer
    (Xiao et al. 2021)."""
    stem_layers: int = 3
    """Residual convolutions behind those that shrink the picture; with few images they are worth more than blocks."""
    patch_bias: bool = True
    """With the linear stem: a bias (CLIP has none)."""
    token_position: bool = False
    """With learned positions and a class token: that has a position of its own, the first of the table (ViT and CLIP)."""
    embedding_norm: bool = False
    """A LayerNorm before the first block (CLIP)."""
    pixel_mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    """Of red, green and blue from 0 to 1; what the stem reads is (x - pixel_mean) / pixel_std. By default from -1 to 1."""
    pixel_std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    """See pixel_mean."""

    kind: ClassVar[str] = "image"
    axes: ClassVar[str] = "yx"

    def __post_init__(self):
        super().__post_init__()
        if self.stem == "convolutions" and self.patch % 4:
            raise ValueError(f"image.stem convolutions begins with one of stride 4; image.patch {self.patch} is no multiple of 4")
        if self.stem == "convolutions" and not self.patch_bias:
            raise ValueError("image.patch_bias belongs to image.stem linear: convolutions have biases")
        if self.token_position and (self.pool != "token" or self.positions != "learned"):
            raise ValueError("image.token_position is that of a class token among learned ones: set image.pool token and positions learned")
        if any(std <= 0 for std in self.pixel_std):
            raise ValueError(f"image.pixel_std is {self.pixel_std}; each must be positive")

    def _sizes(self):
        return "patch", "rows", "columns", "stem_layers"

    @property
    def patch_values(self) -> int:
        return 3 * self.patch**2

    @property
    def extent(self) -> tuple[int, ...]:
        return self.rows, self.columns


@dataclasses.dataclass(frozen=True)
class VideoEncoder(EncoderConfig):
    """A video Transformer over tubelets (Arnab et al. 2021)."""

    frames: int = 2
    """Frames that make one place."""
    patch: int = 16
    """Rows and columns of pixels that make one place."""
    times: int = 16
    """Places along time of the longest clip."""
    rows: int = 16
    """Rows of patches of the tallest clip."""
    columns: int = 16
    """Columns of patches of the widest clip."""
    attention: Literal["joint", "factorised"] = "joint"
    """Every place sees its whole clip, or layers take turns: the first sees its own time only, the next its own row and column at all times
    (Arnab et al. 2021, model 3, with a feed-forward layer after each of the two)."""

    kind: ClassVar[str] = "video"
    axes: ClassVar[str] = "tyx"

    def __post_init__(self):
        super().__post_init__()
        if self.attention == "factorised":
            if self.num_layers % 2:
                raise ValueError(f"video.attention factorised takes layers in pairs; video.num_layers is {self.num_layers}")
            if self.pool == "token":
                raise ValueError("video.attention factorised shows a class token nothing, since it lies nowhere: pool otherwise")

    def _sizes(self):
        return "frames", "patch", "times", "rows", "columns"

    @property
    def patch_values(self) -> int:
        return 3 * self.frames * self.patch**2

    @property
    def extent(self) -> tuple[int, ...]:
        return self.times, self.rows, self.columns


@dataclasses.dataclass(frozen=True)
class AudioEncoder(EncoderConfig):
    """An audio Transformer behind two convolutions, of which the second halves the rate (Radford et al. 2023, sec. 2.2)."""

    mel_bands: int = 80
    """Values of one frame of the log-mel spectrogram."""
    times: int = 1500
    """Places of the longest recording after the convolutions; one lasts 20 ms."""

    kind: ClassVar[str] = "audio"
    axes: ClassVar[str] = "t"

    def __post_init__(self):
        super().__post_init__()
        if self.pool == "token":
            raise ValueError("audio.pool token would be a frame among the convolutions' inputs: pool otherwise")

    def _sizes(self):
        return "mel_bands", "times"

    @property
    def patch_values(self) -> int:
        return self.mel_bands

    @property
    def extent(self) -> tuple[int, ...]:
        return (self.times,)
