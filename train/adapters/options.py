"""Which few parameters are trained beside a frozen model. `omnia train CONFIG --adapters lora` chooses a kind by its name."""

import dataclasses
from typing import ClassVar

from train.kinds import Adapters, check_range

LINEAR = ("attention/*", "cross_attention/*", "feed_forward/gate", "feed_forward/up", "feed_forward/down")
"""All projections of attention and feed-forward layers: what PEFT calls all-linear."""


@dataclasses.dataclass(frozen=True)
class Tuning(Adapters):
    """What all kinds share."""

    trained: tuple[str, ...] = ()
    """Other parameters to train: those whose names begin as these patterns say, such as final_norm. Heads that `start` lacks are added."""
    int8: bool = False
    """Hold the frozen kernels in eight bits: a quarter of their memory."""


@dataclasses.dataclass(frozen=True)
class LowRank(Tuning):
    """What kinds with terms of low rank share."""

    targets: tuple[str, ...] = LINEAR
    """Projections that get a term of low rank: patterns of names, such as attention/query. Default: all of attention and feed-forward."""
    alpha: float = 16.0
    """The term is scaled by alpha / rank."""

    def __post_init__(self):
        check_range("adapters.", self, 0, "alpha")
        if not self.targets:
            raise ValueError("adapters.targets is empty: there is nothing to adapt")


@dataclasses.dataclass(frozen=True)
class LoRA(LowRank):
    """Low-rank adaptation (Hu et al. 2021, arXiv:2106.09685)."""

    home: ClassVar[str] = "train.adapters.low_rank:LowRankTerms"

    rank: int = 8
    """Rank of each term."""
    rs: bool = False
    """Scale by alpha / sqrt(rank), for high ranks (rsLoRA, Kalajdzievski 2023, arXiv:2312.03732)."""
    dora: bool = False
    """Train the norm of each column of the kernel apart from its direction (DoRA, Liu et al. 2024, arXiv:2402.09353)."""
    dropout: float = 0.0
    """Share of each adapter's inputs left out in a step, the same for all tokens (Lin et al. 2024, arXiv:2404.09610), 0 to 1."""

    def __post_init__(self):
        super().__post_init__()
        check_range("adapters.", self, 1, "rank")
        check_range("adapters.", self, 0, "dropout", high=1)


@dataclasses.dataclass(frozen=True)
class AdaLoRA(LowRank):
    """Low-rank adaptation that gives more rank to projections that matter more (Zhang et al. 2023, arXiv:2303.10512)."""

    home: ClassVar[str] = "train.adapters.adalora:SingularTerms"
    fixed: ClassVar[bool] = True

    alpha: float = 32.0
    """The term is scaled by alpha / rank."""
    rank: int = 8
    """Mean rank of a projection at the end: the budget is this times the number of projections."""
    initial_rank: int = 12
    """Rank of each projection at the start."""
    warmup: float = 0.1
    """Share of all steps before ranks begin to fall, 0 to 1."""
    final: float = 0.3
    """Share of all steps at the end, with ranks as they are then, 0 to 1."""
    every: int = 10
    """Steps between two choices of the ranks that stay."""
    beta1: float = 0.85
    """Decay of the mean of sensitivities."""
    beta2: float = 0.85
    """Decay of the mean of their uncertainties."""
    orthogonality: float = 0.5
    """Weight of the regulariser that keeps both factors orthogonal."""

    def __post_init__(self):
        super().__post_init__()
        check_range("adapters.", self, 1, "rank", "initial_rank", "every")
        check_range("adapters.", self, 0, "orthogonality")
        check_range("adapters.", self, 0, "beta1", "beta2", "warmup", "final", high=1)
        if self.rank > self.initial_rank:
            raise ValueError(f"adapters.rank is {self.rank}, above adapters.initial_rank {self.initial_rank}: ranks only fall")
        if self.warmup + self.final >= 1:
            raise ValueError(f"adapters.warmup {self.warmup} and adapters.final {self.final} leave no steps in which ranks fall")


@dataclasses.dataclass(frozen=True)
class Houlsby(Tuning):
    """Bottlenecks behind each attention and feed-forward layer (Houlsby et al. 2019, arXiv:1902.00751)."""

    home: ClassVar[str] = "train.adapters.bottlenecks:Bottlenecks"

    width: int = 64
    """Width of each bottleneck."""

    def __post_init__(self):
        check_range("adapters.", self, 1, "width")


@dataclasses.dataclass(frozen=True)
class Prefix(Tuning):
    """Trained keys and values that every token sees, in each layer (Li & Liang 2021, arXiv:2101.00190)."""

    home: ClassVar[str] = "train.adapters.prefixes:Prefixes"

    length: int = 16
    """Places of the prefix."""

    def __post_init__(self):
        check_range("adapters.", self, 1, "length")


@dataclasses.dataclass(frozen=True)
class Prompt(Tuning):
    """Trained vectors before every text, which the model reads like tokens (Lester et al. 2021, arXiv:2104.08691)."""

    home: ClassVar[str] = "train.adapters.prefixes:Prompts"

    length: int = 16
    """Vectors of the prompt."""

    def __post_init__(self):
        check_range("adapters.", self, 1, "length")


@dataclasses.dataclass(frozen=True)
class BitFit(Tuning):
    """Biases alone (Ben Zaken et al. 2022, arXiv:2106.10199)."""

    home: ClassVar[str] = "train.adapters.method:Biases"
