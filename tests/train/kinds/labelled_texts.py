"""Data of one's own in one file, with a metric that is no mean: short texts of two classes, told apart and scored by F1."""

import dataclasses
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from data.rows.order import fold
from data.tokenizer import character_tokenizer
from model.config import ModelConfig
from train.experiment import Checkpoints, Evaluation, Experiment, Schedule
from train.kinds import Bound, Data, Dataset, Metric, Objective, realise
from train.objectives.terms import Mean, Term

LETTERS, LENGTH = "abcd", 8


class LabelledBatch(NamedTuple):
    """B texts of T letters: tokens int32 [B, T], labels int32 [B], counts float32 [B], 0 on padding rows; rows int32 [B]."""

    tokens: Any
    labels: Any
    counts: Any
    rows: Any


@dataclasses.dataclass(frozen=True)
class LabelledTexts(Data):
    """Random letters; the class says whether a is among the first half."""

    home: ClassVar[str] = ":LabelledDataset"
    rows: ClassVar[str] = "labelled texts"

    validation: int = 21
    """Texts that are kept from training."""


class LabelledSource:
    """The one source of such texts."""

    path, digest = "random letters", "random letters"

    def __init__(self):
        self._tokenizer = character_tokenizer(LETTERS)
        self.document_end, self.ids = self._tokenizer.specials["document_end"], self._tokenizer.size

    def tokenizer(self):
        return self._tokenizer


class LabelledBatches:
    """A pure function of (seed, row)."""

    damaged, damage, padding_share = (), "texts", 0.0

    def __init__(self, tokenizer, seed: int, rows_per_epoch: int):
        self.ids = tokenizer.encode(LETTERS)
        self.seed, self.rows_per_epoch = seed, rows_per_epoch

    def batch(self, first: int, count: int) -> LabelledBatch:
        rows = np.arange(first, first + count)
        letters = np.stack([fold(fold(self.seed, place), rows.astype(np.uint64)) % 4 for place in range(LENGTH)], 1).astype(np.int64)
        labels = (letters[:, : LENGTH // 2] == 0).any(1)
        return LabelledBatch(self.ids[letters].astype(np.int32), labels.astype(np.int32), np.ones(count, np.float32), rows.astype(np.int32))


class LabelledDataset(Dataset):
    options: LabelledTexts
    counted = "texts"

    def paths(self):
        return (LabelledSource.path,)

    def open(self, tokenizer=None):
        return [LabelledSource()]

    def batches(self, sources, split="train"):
        seed = self.experiment.seed if split == "train" else 2**20
        return LabelledBatches(sources[0].tokenizer(), seed, self.options.validation)

    def empty(self, count):
        rows = np.zeros(count, np.int32)
        return LabelledBatch(np.zeros((count, LENGTH), np.int32), rows, np.zeros(count, np.float32), rows)


@dataclasses.dataclass(frozen=True)
class Classification(Objective):
    """The class of a text, by a linear function of the last hidden state."""

    home: ClassVar[str] = ":bind"
    reads: ClassVar[tuple[str, ...]] = ("labelled texts",)

    @property
    def unit(self):
        return "example"


def bind(options: Classification, experiment: Experiment, shards: int) -> Bound:
    model = realise(experiment.model)

    def start(key):
        return model.start(key) | {"classes": {"kernel": jnp.zeros((experiment.model.embed_dim, 2))}}

    def logits(params, batch):
        return model.apply({"params": params}, batch.tokens).hidden_BTD[:, -1] @ params["classes"]["kernel"]

    def loss(params, batch, key, *, frozen=None, carry=None):
        log_probs_B2 = jax.nn.log_softmax(logits(params, batch))
        nll_B = -jnp.take_along_axis(log_probs_B2, batch.labels[:, None], 1)[:, 0]
        hit_B = (log_probs_B2.argmax(1) == batch.labels) * batch.counts
        weight = batch.counts.sum()
        return {"loss": Term(1.0, (nll_B * batch.counts).sum(), weight)}, {"accuracy": Mean(hit_B.sum(), weight)}, carry

    def outputs(params, batch):
        return {"predicted": logits(params, batch).argmax(1), "labels": batch.labels, "weights": batch.counts}

    return Bound(loss, start=start, parts=model.parts(), outputs=outputs)


@dataclasses.dataclass(frozen=True)
class F1(Metric):
    """The harmonic mean of precision and recall of a class: no mean over rows."""

    home: ClassVar[str] = ":F1Score"

    positive: int = 1
    """The class."""


class F1Score:
    def __init__(self, options: F1):
        self.positive, self.counts = options.positive, np.zeros(3)

    def add(self, outputs):
        predicted, labels = outputs["predicted"] == self.positive, outputs["labels"] == self.positive
        inside = outputs["weights"] > 0
        self.counts += [(predicted & labels & inside).sum(), (predicted & inside).sum(), (labels & inside).sum()]

    def result(self):
        both, predicted, labels = self.counts
        return {"f1": float(2 * both / max(predicted + labels, 1)), "f1_texts": float(labels)}


def get_config(arg: str = "") -> Experiment:
    return Experiment(
        steps=4,
        batch_size=8,
        model=ModelConfig(context_length=LENGTH, num_layers=1, embed_dim=16, num_heads=2),
        data=LabelledTexts(),
        objective=Classification(),
        schedule=Schedule(warmup_steps=1),
        evaluation=Evaluation(every=2, metrics=(F1(),)),
        checkpoints=Checkpoints(every=2),
    )
