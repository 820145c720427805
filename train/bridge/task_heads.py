"""Heads of tasks beside published encoders, as BertForSequenceClassification and its kin have them, with the names of their labels."""

import dataclasses
import re
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from model.convert.family import Family, Tensor
from model.text_encoder_config import TextEncoderConfig
from train.experiment import Experiment
from train.kinds import home_of
from train.objectives.distillation import Distillation
from train.objectives.tasks.heads import Choice, Classes, Number, SeveralLabels, Span
from train.objectives.tasks.options import Supervised
from train.tasks.choice import MultipleChoice
from train.tasks.classification import Classification
from train.tasks.similarity import Similarity
from train.tasks.spans import Spans
from train.tasks.tagging import Tagging
from train.tasks.task import Task


class Kind(NamedTuple):
    """A class of Hugging Face's. module: the name of its head. pooled: whether the head reads the pooler's output, and not hidden states.
    task: what PEFT calls its purpose."""

    module: str
    pooled: bool
    task: str | None


KINDS = {
    "ForSequenceClassification": Kind("classifier", True, "SEQ_CLS"),
    "ForMultipleChoice": Kind("classifier", True, None),
    "ForTokenClassification": Kind("classifier", False, "TOKEN_CLS"),
    "ForQuestionAnswering": Kind("qa_outputs", False, "QUESTION_ANS"),
}
"""By how the names of Hugging Face's classes end."""
HEADS: dict[type, str] = {
    Classes: "ForSequenceClassification",
    SeveralLabels: "ForSequenceClassification",
    Number: "ForSequenceClassification",
    Choice: "ForMultipleChoice",
    Span: "ForQuestionAnswering",
}
POOLS = {"pooler": "the pooler's output", "first": "the first hidden state", "mean": "the mean of hidden states"}
"""What a head may read of a text."""
LONGEST = 512
"""Tokens that an imported task reads of a text, where the model can."""
MOST_LABELS = 100_000
HIDDEN_LAYER = "classifier.dense"
"""RoBERTa's classifier of texts has the pooler within it."""


@dataclasses.dataclass(frozen=True)
class TaskHead:
    """A head of a published encoder. family: with the head among its tensors. config: of our model, without the pooler and the prediction
    head that such a class does not have. settings: its config.json."""

    kind: Kind
    family: Family
    config: TextEncoderConfig
    settings: dict[str, Any]

    @property
    def tensors(self) -> list[Tensor]:
        """Those that belong to the head alone."""
        every = self.family.tensors(self.config, "hf", self.settings)
        return [tensor for tensor in every if tensor.name.startswith(f"{self.kind.module}.")]

    @property
    def paths(self) -> list[str]:
        """Of our parameters."""
        return [path for tensor in self.tensors for path in tensor.paths]


def with_head(family: Family, ending: str, width: int, scale: float = 1.0) -> Family:
    """The family with a head among its tensors. scale: ours = theirs * scale."""
    kind, own = KINDS[ending], family.model_types[0]
    inside = own == "roberta" and ending == "ForSequenceClassification"
    last = "classifier.out_proj" if inside else kind.module

    def tensors(config, layout, settings):
        trunk = family.tensors(config, layout, settings)
        if inside:
            trunk = [dataclasses.replace(one, name=one.name.replace("roberta.pooler.dense", HIDDEN_LAYER)) for one in trunk]
        head = [
            Tensor(f"{last}.weight", "task_head/kernel", "s d -> d s", scale=scale),
            Tensor(f"{last}.bias", "task_head/bias", "s -> s", scale=scale),
        ]
        return [*trunk, *head]

    return dataclasses.replace(family, tensors=tensors, sizes=lambda config: family.sizes(config) | {"s": width})


# ------------------------------------------------------------------------------------------------------------------ writing


def leaving_head(experiment: Experiment, family: Family, settings: Mapping[str, Any]) -> TaskHead | None:
    """The head that a run's task has; None for a run without one. family, settings: of its model. ValueError where no class of Hugging
    Face's computes the same."""
    objective, data = experiment.objective, experiment.data
    if isinstance(objective, Distillation):
        objective = objective.of
    if not isinstance(objective, Supervised) or not isinstance(data, Task) or not isinstance(experiment.model, TextEncoderConfig):
        return None
    dataset: Any = home_of(data)(data, dataclasses.replace(experiment, objective=objective))
    head = dataset.head()
    if head is None:  # vectors are compared as they are
        return None
    if objective.ngrams:
        raise ValueError("no class of theirs weighs n-grams beside its head")
    ending = "ForTokenClassification" if isinstance(head, Classes) and head.by_token else HEADS.get(type(head))
    if ending is None:
        raise ValueError(f"no class of theirs has a {type(head).__name__}")
    name = re.sub("(ForMaskedLM|Model)$", "", settings["architectures"][0])
    kind, pool = KINDS[ending], objective.pool
    pool = ("pooler" if experiment.model.pooler else "mean") if pool == "auto" else pool
    if kind.pooled and (family.model_types[0] == "distilbert" or pool != "pooler"):
        theirs = "its first hidden state through another layer" if name == "DistilBert" else POOLS["pooler"]
        raise ValueError(f"a {name}{ending} reads {theirs}, and this head {POOLS[pool]}")
    config = dataclasses.replace(experiment.model, prediction_head=False, pooler=kind.pooled)
    own: dict[str, Any] = {"architectures": [name + ending]}
    labels = objective.labels or ("LABEL_0",)
    if ending in ("ForSequenceClassification", "ForTokenClassification"):
        own |= {"id2label": dict(enumerate(labels)), "label2id": {label: place for place, label in enumerate(labels)}}
        own |= {"num_labels": len(labels)}
    if ending == "ForSequenceClassification":
        types = {SeveralLabels: "multi_label_classification", Number: "regression"}
        own["problem_type"] = types.get(type(head), "single_label_classification")
    scale = 1.0 / data.scale if isinstance(data, Similarity) else 1.0
    return TaskHead(kind, with_head(family, ending, head.width, scale), config, {**settings, **own})


# ------------------------------------------------------------------------------------------------------------------ reading


def arriving_head(family: Family, settings: Mapping[str, Any]) -> tuple[Family, Task, Supervised] | None:
    """(the family with the head among its tensors, the task, its objective) of a config.json; None where its class has no head for a task.
    ValueError for one that cannot be read."""
    name = str((settings.get("architectures") or [""])[0])
    ending = next((one for one in KINDS if name.endswith(one)), None)
    if ending is None or family.model_types[0] not in ("bert", "roberta", "albert", "distilbert"):
        return None
    if KINDS[ending].pooled and family.model_types[0] == "distilbert":
        raise ValueError(f"a {name} has a layer of its own before the classifier, which cannot be read")
    labels = labels_of(settings)
    several, number = (settings.get("problem_type") == what for what in ("multi_label_classification", "regression"))
    number = number or (len(labels) == 1 and not several)
    if ending == "ForTokenClassification":
        _check_tags(labels)
    task, width, objective = task_of(ending, labels, several=several, number=number)

    def found(names: Collection[str]) -> dict[str, Any]:
        there = family.found(names)
        return there | {"pooler": there.get("pooler", False) or any(one.startswith(HIDDEN_LAYER) for one in names)}

    return dataclasses.replace(with_head(family, ending, width), found=found), task, objective


def task_of(ending: str, labels: tuple[str, ...], *, several: bool = False, number: bool = False) -> tuple[Task, int, Supervised]:
    """(a task without files, the width of its head, its objective), by how a class of theirs is called."""
    if ending == "ForQuestionAnswering":
        return Spans(length=LONGEST, answerable=False), 2, Supervised()
    if ending == "ForMultipleChoice":
        return MultipleChoice(length=LONGEST), 1, Supervised(pool="pooler")
    if ending == "ForTokenClassification":
        return Tagging(length=LONGEST), len(labels), Supervised(labels=labels)
    if number:
        return Similarity(length=LONGEST), 1, Supervised(pool="pooler")
    return Classification(length=LONGEST, several=several), len(labels), Supervised(labels=labels, pool="pooler")


def fitting(task: Task, config: Any) -> Task:
    """The task with rows that a model reads."""
    return dataclasses.replace(task, length=min(task.length, config.context_length))


def labels_of(settings: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the labels, in the order of their numbers. ValueError for what is no such list."""
    named, count = settings.get("id2label"), settings.get("num_labels") or 2
    if not named:
        if not isinstance(count, int) or not 0 < count <= MOST_LABELS:
            raise ValueError(f"num_labels is {count!r}, and not a number of labels")
        return tuple(f"LABEL_{place}" for place in range(count))
    if not isinstance(named, dict) or sorted(map(int, named)) != list(range(len(named))):
        raise ValueError(f"id2label is {str(named)[:200]}, and not a name for each number from 0 on")
    labels = tuple(named[place] for place in sorted(named, key=int))
    if not all(isinstance(label, str) and label for label in labels) or len(set(labels)) < len(labels):
        raise ValueError("id2label has names that are no texts, or the same for two labels")
    return labels


def _check_tags(labels: tuple[str, ...]) -> None:
    """ValueError for tags that are not IOB2: what reads them lets an entity begin with B- alone."""
    inside = {label[2:] for label in labels if label.startswith("I-")}
    strange = [label for label in labels if label != "O" and label[:2] not in ("B-", "I-")]
    if "O" not in labels or strange or inside - {label[2:] for label in labels if label.startswith("B-")}:
        raise ValueError(f"its tags are not IOB2, which has O, B-TYPE and I-TYPE: {', '.join(labels[:12])}")
