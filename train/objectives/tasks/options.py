"""The options of learning from labelled examples. Nothing heavy is imported here."""

import dataclasses
from collections import Counter
from typing import Any, ClassVar, Literal

from train.kinds import Objective, check_range


@dataclasses.dataclass(frozen=True)
class Supervised(Objective):
    """Labelled examples of a task. An encoder answers by a head of its own, other models by writing the answer."""

    home: ClassVar[str] = "train.objectives.tasks.supervised:bind"
    reads: ClassVar[tuple[str, ...]] = ("task",)
    generates: ClassVar[bool] = True
    shifted: ClassVar[bool] = True
    contrasted: ClassVar[bool] = True

    labels: tuple[str, ...] = ()
    """Names of the labels. Empty: those that the files have, in alphabetical order."""
    counts: tuple[int, ...] = ()
    """How many examples to learn from have each label. Empty: counted."""
    fitted: tuple[float, ...] = ()
    """What the task measures of the examples to learn from, such as means of values. Empty: measured."""
    ordinary: int = 0
    """With label_smoothing: how many ids a token of a model that writes is spread over, from the first. 0: as many as the tokenizer has."""
    pool: Literal["auto", "pooler", "first", "mean"] = "auto"
    """What an encoder's head reads of a text: its pooler's output, its first hidden state, or the mean of all. auto: as the authors of
    an imported model do; else the pooler, where the model has one, else the mean."""
    head_dropout: float = 0.1
    """Dropout before an encoder's head, 0 to below 1."""
    ngrams: int = 0
    """Tokens of the longest n-grams of a linear model that is added to an encoder's head (Cheng et al. 2016). 0: there is none. For tasks
    that label whole texts, and nothing but texts."""
    label_smoothing: float = 0.0
    """Share of each label that is spread over all labels in training, 0 to below 1 (Szegedy et al. 2016, sec. 7); of models that write, of
    each token over the vocabulary."""
    class_weights: Literal["none", "balanced"] = "none"
    """balanced: an example counts in inverse proportion to how frequent its label is."""
    r_drop: float = 0.0
    """Weight of how far the answers of two passes with different dropout diverge (R-Drop: Liang et al. 2021, eq. 4), 1 to 5. 0: off."""
    mixup: float = 0.0
    """Mix the vector and the label of each text with those of another one of the batch, by a share drawn from Beta(mixup, mixup) (Guo et
    al. 2019, sec. 3.2), 0.1 to 1. 0: off. For encoders that label whole texts."""

    def __post_init__(self):
        check_range("objective.", self, 0, "head_dropout", "label_smoothing", high=1)
        check_range("objective.", self, 0, "r_drop", "mixup", "ngrams")
        if self.ngrams and self.mixup:
            raise ValueError("objective.mixup mixes vectors of texts, and objective.ngrams has none: leave one at 0")
        if self.r_drop and self.mixup:
            raise ValueError("objective.r_drop compares answers to single texts, and objective.mixup mixes texts: leave one at 0")

    @property
    def unit(self) -> Literal["token", "example", "batch"]:
        return "batch" if self.mixup else "example"

    def completed(self, sources: list) -> "Supervised":
        found: dict[str, Any] = {} if self.ordinary or not self.label_smoothing else {"ordinary": sources[0].ids}
        if self.pool == "auto" and (pool := sources[0].dataset.authors_pool()):
            found["pool"] = pool
        return dataclasses.replace(self, **found)._with_labels(sources)

    def _with_labels(self, sources: list) -> "Supervised":
        dataset = sources[0].dataset
        held = dataset.examples(sources, "validation")
        learned = dataset.examples(sources, "train") if dataset.options.files else held
        labels = self.labels or dataset.labels([*learned, *(example for example in held if dataset.labelled(example))])
        fitted = self.fitted or dataset.fitted_to(learned)
        if not labels or self.counts:
            return dataclasses.replace(self, labels=labels, fitted=fitted)
        seen = Counter(name for example in learned for name in dataset.counted_labels(example))
        return dataclasses.replace(self, labels=labels, counts=tuple(seen[name] for name in labels), fitted=fitted)


@dataclasses.dataclass(frozen=True)
class SupervisedTogether(Objective):
    """Labelled examples of several tasks: L = sum over tasks of share * loss (Caruana 1997). An encoder has a head for each, other models
    write the answers to all, and their loss is a mean over the tokens of answers."""

    home: ClassVar[str] = "train.objectives.tasks.together:bind"
    reads: ClassVar[tuple[str, ...]] = ("tasks",)
    generates: ClassVar[bool] = True
    shifted: ClassVar[bool] = True

    of: Supervised = Supervised()
    """What the tasks have in common."""
    tasks: tuple[Supervised, ...] = ()
    """The same for each task, with its labels. Filled in when the run is made."""

    def __post_init__(self):
        if self.of.r_drop or self.of.mixup:
            raise ValueError("objective.of.r_drop and objective.of.mixup are for a single task: leave them at 0")

    @property
    def unit(self) -> Literal["token", "example", "batch"]:
        return "example"

    def of_task(self, number: int) -> Supervised:
        return self.tasks[number] if self.tasks else self.of

    def completed(self, sources: list) -> "SupervisedTogether":
        datasets = list(dict.fromkeys(source.dataset for source in sources))
        own = [[source for source in sources if source.dataset is dataset] for dataset in datasets]
        return dataclasses.replace(self, tasks=tuple(self.of_task(number).completed(one) for number, one in enumerate(own)))
