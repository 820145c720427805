"""The options of objectives on text that supervise themselves. Nothing heavy is imported here."""

import dataclasses
import json
from typing import ClassVar, Literal

from data.errors import UserError
from data.text.words import sentence_ends
from data.tokenizer import Tokenizer
from train.experiment import CausalLM
from train.kinds import Objective, check_range


@dataclasses.dataclass(frozen=True)
class OnText(Objective):
    """What objectives on rows of text have in common."""

    reads: ClassVar[tuple[str, ...]] = ("tokens", "pairs")


@dataclasses.dataclass(frozen=True)
class Masking(OnText):
    """What objectives that hide tokens have in common."""

    mask: int = -1
    """Id of the mask token. -1: the tokenizer's."""
    ordinary: int = 0
    """Random tokens are drawn from the ids below this. 0: all ids of ordinary text."""

    def completed(self, sources: list) -> "Masking":
        tokenizer = sources[0].tokenizer()
        mask = self.mask if self.mask >= 0 else special_id(tokenizer, "mask")
        return dataclasses.replace(self, mask=mask, ordinary=self.ordinary or tokenizer.base_size)


def special_id(tokenizer: Tokenizer, name: str) -> int:
    """A special id of a tokenizer; UserError where it has none of this name."""
    if name not in tokenizer.specials:
        raise UserError(f"the tokenizer has no id for {name}", "Prepare the text with another tokenizer, or set the id in the config file.")
    return tokenizer.specials[name]


def check_share(holder: object, *names: str) -> None:
    """ValueError unless the fields lie strictly between 0 and 1."""
    for name in names:
        if not 0 < getattr(holder, name) < 1:
            raise ValueError(f"objective.{name} is {getattr(holder, name)}; it must be above 0 and below 1")


@dataclasses.dataclass(frozen=True)
class MaskedLM(Masking):
    """Masked language modelling (Devlin et al. 2019, sec. 3.1): predict hidden tokens from both sides."""

    home: ClassVar[str] = "train.objectives.text.masked_lm:bind"

    rate: float = 0.15
    """Share of each row's tokens that are predicted, above 0 and below 1."""
    whole_words: bool = False
    """Hide all tokens of a word or none (Cui et al. 2021); needs data.words."""
    spans: bool = False
    """Hide spans of geometric lengths, 3.8 tokens on average and 10 at most (Joshi et al. 2020, sec. 3.1); of words with whole_words."""
    sentence_pairs: float = 0.0
    """Weight of the next-sentence loss in the same pass; needs pairs (data SentencePairData). BERT has 1. 0: off."""

    def __post_init__(self):
        check_share(self, "rate")
        check_range("objective.", self, 0, "sentence_pairs")


@dataclasses.dataclass(frozen=True)
class SentencePairs(Objective):
    """Whether the second text of a pair follows the first: next sentence (Devlin et al. 2019), or order (ALBERT, Lan et al. 2020)."""

    home: ClassVar[str] = "train.objectives.text.sentence_pairs:bind"
    reads: ClassVar[tuple[str, ...]] = ("pairs",)

    @property
    def unit(self) -> Literal["token", "example", "batch"]:
        return "example"


@dataclasses.dataclass(frozen=True)
class SpanDenoising(OnText):
    """Span corruption (T5, Raffel et al. 2020, sec. 3.1.4): an encoder-decoder writes the spans that sentinels stand for."""

    home: ClassVar[str] = "train.objectives.text.span_denoising:bind"

    rate: float = 0.15
    """Share of a row that is noise, above 0 and below 1."""
    mean_span: float = 3.0
    """Mean length of the noise spans, in tokens, at least 1."""
    segments: int = 8
    """Documents of a row that the shortened rows have room for; what has none is left out and counted (metric dropped)."""
    first_sentinel: int = -1
    """Id of the first sentinel. -1: the tokenizer's extra_id_0, or its first spare id."""
    sentinel_step: int = 0
    """From a sentinel's id to the next. 0: the tokenizer's, which is -1 for those of T5."""
    sentinels: int = 0
    """Sentinels there are. 0: the tokenizer's."""
    end: int = -1
    """Id that ends what the decoder writes. -1: the end of a document."""

    def __post_init__(self):
        check_share(self, "rate")
        check_range("objective.", self, 1, "mean_span", "segments")

    def completed(self, sources: list) -> "SpanDenoising":
        tokenizer = sources[0].tokenizer()
        first, step, count = sentinels_of(tokenizer)
        end = special_id(tokenizer, "document_end")
        return dataclasses.replace(
            self,
            first_sentinel=self.first_sentinel if self.first_sentinel >= 0 else first,
            sentinel_step=self.sentinel_step or step,
            sentinels=self.sentinels or count,
            end=self.end if self.end >= 0 else end,
        )


def sentinels_of(tokenizer: Tokenizer) -> tuple[int, int, int]:
    """(first id, step, count) of what stands for hidden spans: T5's extra ids where the tokenizer has them, else the spare ids."""
    added = json.loads(tokenizer.files.get("huggingface.json", b"{}")).get("added_tokens") or ()
    ids = {token["content"]: token["id"] for token in added}
    names = "<extra_id_{}>" if "<extra_id_1>" in ids else "spare_{}"
    ids = ids if "<extra_id_1>" in ids else tokenizer.specials
    count = next(n for n in range(len(ids) + 1) if names.format(n) not in ids)
    if count < 2:
        raise UserError("the tokenizer has no spare ids for sentinels", "Set objective.first_sentinel and sentinels in the config file.")
    first, second = (ids[names.format(number)] for number in (0, 1))
    return first, second - first, count


@dataclasses.dataclass(frozen=True)
class PrefixLM(OnText):
    """Prefix language modelling (Raffel et al. 2020, sec. 3.2.2): the rest of each text from a prefix that is read both ways.

    An encoder-decoder encodes the prefix and decodes the rest. A decoder reads both, the positions of the prefix seeing one another.
    """

    home: ClassVar[str] = "train.objectives.text.prefix_lm:bind"
    generates: ClassVar[bool] = True


@dataclasses.dataclass(frozen=True)
class AutoEncoding(OnText):
    """Reconstruction of corrupted text (BART, Lewis et al. 2020, sec. 2.2): shuffled, then tokens deleted, then spans masked.

    An encoder-decoder encodes what is left and decodes the original. For a decoder, each row becomes two of half its length: first what is
    left of a text, then a separator and the original, on which alone there is a loss.
    """

    home: ClassVar[str] = "train.objectives.text.auto_encoding:bind"

    infilling: float = 0.3
    """Share of tokens in spans of which each becomes one mask, 0 to below 1."""
    mean_span: float = 3.0
    """Mean of the Poisson-distributed lengths of these spans, in tokens, above 0."""
    deletion: float = 0.0
    """Share of tokens that are left out, 0 to below 1."""
    shuffling: Literal["none", "sentences", "windows"] = "none"
    """What is put in a random order within each text: nothing, sentences, or windows of tokens."""
    window: int = 8
    """Tokens of a window."""
    mask: int = -1
    """Id of the mask token. -1: the tokenizer's."""
    separator: int = -1
    """Id between a corrupted text and its original, for a decoder. -1: the tokenizer's fim_middle."""
    sentence_ends: tuple[int, ...] = ()
    """Ids that end a sentence, for shuffling sentences. Empty: those of the tokenizer with a full stop, a question or exclamation mark."""

    def __post_init__(self):
        check_range("objective.", self, 0, "infilling", "deletion", high=1)
        check_range("objective.", self, 1, "window")
        if not 0 < self.mean_span <= 20:
            raise ValueError(f"objective.mean_span is {self.mean_span}; it must be above 0 and at most 20")
        if not self.infilling and not self.deletion and self.shuffling == "none":
            raise ValueError("objective: nothing is corrupted: set infilling, deletion or shuffling")

    def completed(self, sources: list) -> "AutoEncoding":
        tokenizer = sources[0].tokenizer()
        ends = self.sentence_ends
        if self.shuffling == "sentences" and not ends:
            ends = sentence_ends(tokenizer)
            if not ends:
                raise UserError("objective.shuffling: the tokenizer has no id that ends a sentence", "Set --objective.shuffling windows.")
        return dataclasses.replace(
            self,
            mask=self.mask if self.mask >= 0 else special_id(tokenizer, "mask"),
            separator=self.separator if self.separator >= 0 else special_id(tokenizer, "fim_middle"),
            sentence_ends=ends,
        )


@dataclasses.dataclass(frozen=True)
class SimCSE(OnText):
    """Contrastive vectors of texts, dropout being all that tells two views of one apart (Gao et al. 2021, eq. 1)."""

    home: ClassVar[str] = "train.objectives.text.simcse:bind"

    temperature: float = 0.05
    """Divides the cosines, above 0."""
    pool: Literal["mean", "first"] = "mean"
    """Vector of a text: the mean of its hidden states, or that of its first token."""
    texts: int = 8
    """Texts of a row that take part; more are left out and counted (metric dropped)."""

    def __post_init__(self):
        check_range("objective.", self, 1, "texts")
        if not self.temperature > 0:
            raise ValueError(f"objective.temperature is {self.temperature}; it must be above 0")

    @property
    def unit(self) -> Literal["token", "example", "batch"]:
        return "batch"


@dataclasses.dataclass(frozen=True)
class ReplacedTokens(Masking):
    """Replaced token detection (ELECTRA, Clark et al. 2020): which tokens a small masked language model has put in place of others.

    Both are encoders with one table of tokens. Evaluation and export use the discriminator.
    """

    home: ClassVar[str] = "train.objectives.text.replaced_tokens:bind"

    rate: float = 0.15
    """Share of each row's tokens that the generator predicts, above 0 and below 1."""
    detection: float = 50.0
    """Weight of the discriminator's loss beside the generator's."""
    generator_size: float = 0.25
    """Width, heads and feed-forward width of the generator as a share of the discriminator's, above 0, at most 1."""

    def __post_init__(self):
        check_share(self, "rate")
        check_range("objective.", self, 0, "detection")
        if not 0 < self.generator_size <= 1:
            raise ValueError(f"objective.generator_size is {self.generator_size}; it must be above 0 and at most 1")


@dataclasses.dataclass(frozen=True)
class RecurrentLM(CausalLM):
    """Next-token prediction by what earlier rows of the same text left behind: segment-level recurrence (Dai et al. 2019, sec. 3.2)."""

    home: ClassVar[str] = "train.objectives.text.recurrent_lm:bind"
    reads: ClassVar[tuple[str, ...]] = ("lanes",)
    only_evaluated: ClassVar[tuple[str, ...]] = ("evaluation_memory", "evaluation_limit")

    memory: int = 128
    """Positions of each layer's input that a row leaves to the next."""
    evaluation_memory: int = 0
    """The same in evaluations; up to about twice as many as in training make the loss lower. 0: as in training."""
    evaluation_limit: int = 0
    """In evaluations distances beyond count as this many: with it, still longer memories help. 0: the model's distance_limit."""

    def __post_init__(self):
        super().__post_init__()
        check_range("objective.", self, 1, "memory")
        check_range("objective.", self, 0, "evaluation_memory", "evaluation_limit")


@dataclasses.dataclass(frozen=True)
class Sum(Objective):
    """Several objectives on one model, added up: L = sum of coefficient * loss.

    Parameters of equal names are shared. `loss` is that of the first; each term and metric has its objective's name in front.
    """

    home: ClassVar[str] = "train.objectives.text.total:bind"

    objectives: tuple[Objective, ...] = (CausalLM(), AutoEncoding())
    """What is added up; the first decides which loss evaluations compare."""
    coefficients: tuple[float, ...] = ()
    """Weight of each. Empty: 1 for all."""

    def __post_init__(self):
        if len(self.objectives) < 2:
            raise ValueError(f"objective.objectives: a sum of {len(self.objectives)}; give at least two")
        if not self.reads:
            what = ", ".join(f"{type(one).__name__} reads {' or '.join(one.reads)}" for one in self.objectives)
            raise ValueError(f"objective.objectives: no data serves all of them: {what}")
        if self.coefficients and len(self.coefficients) != len(self.objectives):
            raise ValueError(f"objective.coefficients: {len(self.coefficients)} for {len(self.objectives)} objectives")
        if any(not value >= 0 for value in self.coefficients):
            raise ValueError(f"objective.coefficients {self.coefficients}: none may be below 0")

    @property
    def reads(self) -> tuple[str, ...]:  # type: ignore[override]
        first, *others = (set(one.reads) for one in self.objectives)
        return tuple(sorted(first.intersection(*others)))

    @property
    def generates(self) -> bool:  # type: ignore[override]
        return self.objectives[0].generates

    @property
    def unit(self) -> Literal["token", "example", "batch"]:
        units = {one.unit for one in self.objectives}
        return "batch" if "batch" in units else "example" if "example" in units else "token"

    def completed(self, sources: list) -> "Sum":
        return dataclasses.replace(self, objectives=tuple(one.completed(sources) for one in self.objectives))
