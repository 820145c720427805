"""Small changes of texts that change a classifier's answers: greedy substitution, important words first (Jin et al. 2020, algorithm 1).

The importance of a word is how much the probability of the true label falls without it. Then, word by word, that one of its substitutes is
kept which changes the answer, the first such, or else lowers that probability the most, until the answer changes or the budget is used up.
All examples take their steps together, so that the model reads large batches. Not done as in the paper: no part of speech is compared, and
no sentence encoder judges whether the meaning stays; look at the texts.
"""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import xxhash

from data.errors import UserError
from train.kinds import Section, check_range
from train.tasks.changes.noise import Words, join_words, lookalikes, some, split_words, typing_errors
from train.tasks.changes.synonyms import FUNCTION_WORDS, Synonyms, in_place_of
from train.tasks.examples import Example

Substitution = Literal["words", "characters", "lookalikes"]
Probabilities = Callable[[list[Example]], np.ndarray]
"""float32 [examples, labels]."""


@dataclasses.dataclass(frozen=True)
class Budget:
    """What an attack may do."""

    kinds: tuple[Substitution, ...] = ("words",)
    """Substitutes of a word: other words from a table of synonyms, typing errors in it, or look-alike and invisible characters."""
    changes: float = 0.3
    """Largest share of a text's words that may be changed, at least one, above 0, at most 1."""
    tries: int = 8
    """Substitutes of each kind that are tried for a word."""

    def __post_init__(self):
        check_range("", self, 1e-3, "changes", high=1 + 1e-9)
        check_range("", self, 1, "tries")
        if not self.kinds:
            raise ValueError("kinds is empty: name some of words, characters and lookalikes")


class Attacked(NamedTuple):
    """An example after the attack: as it was where the answer was wrong already."""

    example: Example
    right_before: bool
    right_after: bool
    changed: int
    """Words that are not as they were."""
    words: int
    """Words that it has."""


@dataclasses.dataclass
class _Attempt:
    """An example under attack. order: (field, place) of its words, the most important first."""

    example: Example
    label: int
    texts: dict[str, Words]
    chance: float
    room: int
    order: list[tuple[str, int]] = dataclasses.field(default_factory=list)
    changed: int = 0
    fooled: bool = False

    def with_word(self, field: str, place: int, word: str) -> dict[str, Words]:
        words = list(self.texts[field])
        words[place] = (words[place][0], word)
        return self.texts | {field: words}

    def read(self, texts: dict[str, Words]) -> Example:
        return self.example._replace(fields=self.example.fields | {name: join_words(words) for name, words in texts.items()})

    @property
    def alive(self) -> bool:
        return not self.fooled and bool(self.order) and self.changed < self.room


def attack(
    examples: list[Example], labels: list[int], fields: tuple[str, ...], probabilities: Probabilities, synonyms: Synonyms, budget: Budget
) -> list[Attacked]:
    """What becomes of each example. fields: the texts of it that may be changed. labels: the number of each example's true one."""
    clean_NV = probabilities(examples)
    attempts = []
    for example, label, chances_V in zip(examples, labels, clean_NV, strict=True):
        texts = {name: split_words(example.fields[name]) for name in fields if name in example.fields}
        room = max(1, int(budget.changes * sum(map(_count, texts.values()))))
        attempts.append(_Attempt(example, label, texts, float(chances_V[label]), room, fooled=int(chances_V.argmax()) != label))
    right = [not attempt.fooled for attempt in attempts]
    _find_order([attempt for attempt in attempts if not attempt.fooled], probabilities, synonyms, budget)
    while moving := [attempt for attempt in attempts if attempt.alive]:
        _take_step(moving, probabilities, synonyms, budget)
    return [
        Attacked(one.read(one.texts), before, not one.fooled, one.changed, sum(map(_count, one.texts.values())))
        for one, before in zip(attempts, right, strict=True)
    ]


def _count(words: Words) -> int:
    return sum(word[:1].isalnum() for _, word in words)


def substitutes(word: str, synonyms: Synonyms, budget: Budget) -> list[str]:
    """What may stand in place of a word, drawn by the word itself where there is too much."""
    draw = np.random.default_rng(xxhash.xxh3_64(word.encode()).intdigest())
    found: list[str] = []
    for kind in budget.kinds:
        if kind == "words":
            found += in_place_of(word, synonyms)[: budget.tries]
        elif word.lower() not in FUNCTION_WORDS and word[:1].isalnum():
            found += some(typing_errors(word) if kind == "characters" else lookalikes(word), budget.tries, draw)
    return [one for one in dict.fromkeys(found) if one != word]


def _asked(probabilities: Probabilities, groups: list[list[Example]]) -> Iterable[np.ndarray]:
    """The probabilities of all examples of all groups, group by group."""
    flat = [example for group in groups for example in group]
    found = probabilities(flat) if flat else np.zeros((0, 1), np.float32)
    return np.split(found, np.cumsum([len(group) for group in groups])[:-1])


def _find_order(attempts: list[_Attempt], probabilities: Probabilities, synonyms: Synonyms, budget: Budget) -> None:
    places = [
        [(name, place) for name, words in one.texts.items() for place, (_, word) in enumerate(words) if substitutes(word, synonyms, budget)]
        for one in attempts
    ]
    without = [[one.read(one.with_word(*at, "")) for at in own] for one, own in zip(attempts, places, strict=True)]
    if not attempts:
        return
    for one, own, chances_PV in zip(attempts, places, _asked(probabilities, without), strict=True):
        order = np.argsort(chances_PV[:, one.label], kind="stable") if own else []
        one.order = [own[place] for place in order]


def _take_step(attempts: list[_Attempt], probabilities: Probabilities, synonyms: Synonyms, budget: Budget) -> None:
    """The next word of each."""
    tried = []
    for one in attempts:
        name, place = one.order.pop(0)
        tried.append([one.with_word(name, place, other) for other in substitutes(one.texts[name][place][1], synonyms, budget)])
    asked = _asked(probabilities, [[one.read(texts) for texts in own] for one, own in zip(attempts, tried, strict=True)])
    for one, own, chances_PV in zip(attempts, tried, asked, strict=True):
        chances_P = chances_PV[:, one.label]
        fooling = np.flatnonzero(chances_PV.argmax(1) != one.label)
        best = int(fooling[0]) if fooling.size else int(chances_P.argmin())
        if fooling.size or chances_P[best] < one.chance:
            one.texts, one.chance, one.fooled = own[best], float(chances_P[best]), bool(fooling.size)
            one.changed += 1


def summary(found: list[Attacked]) -> dict[str, Any]:
    """Accuracy before and after, the share of right answers that were changed, and the share of words that it took."""
    right = [one for one in found if one.right_before]
    fooled = [one for one in right if not one.right_after]
    return {
        "examples": len(found),
        "clean_accuracy": len(right) / len(found),
        "robust_accuracy": (len(right) - len(fooled)) / len(found),
        "success": len(fooled) / len(right) if right else 0.0,
        "words_changed": float(np.mean([one.changed / one.words for one in fooled])) if fooled else 0.0,
    }


TITLE, SHOWN = "Under attack", 8
"""Of the section in a report, and of the texts that it shows."""


def section(records: list[dict[str, Any]], found: dict[str, Any], files: Sequence[str], kinds: Sequence[str]) -> Section:
    """What an attack did, for the report of the run that was attacked."""
    measured = [
        ["files", " ".join(files)],
        ["changes of a word", " ".join(kinds)],
        ["examples, checkpoint", f"{found['examples']:,}, step {found['step']:,}"],
        *[[name, f"{found[key]:.4f}"] for name, key in (("accuracy", "clean_accuracy"), ("accuracy under attack", "robust_accuracy"))],
        ["right answers that were changed", f"{found['success']:.4f}"],
        ["words that it took, of a text", f"{found['words_changed']:.4f}"],
    ]
    fooled = [record for record in records if record["success"]][:SHOWN]
    texts = [[record[name.removeprefix("original_")], record[name]] for record in fooled for name in record if name.startswith("original_")]
    return Section(TITLE, columns=("", ""), rows=[*measured, *([["answered wrongly", "instead of"]] if texts else []), *texts])


def attack_run(
    run, files: tuple[str, ...], budget: Budget, *, synonyms: str = "", count: int = 0, step: int | None = None, raw: bool = False
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """(records of the attacked examples, with the columns that the run reads; the summary with "step" and "queries").

    synonyms: a table; "": with words among the kinds, neighbours in the run's own embedding table.
    count: examples to attack, from the first on; 0: all.
    """
    from train.checkpoints.checkpointer import load_parameters
    from train.devices.mesh import inference_mesh
    from train.evaluation.totals import Evaluator
    from train.objectives.bind import bind
    from train.sources.dataset import dataset_of, elsewhere
    from train.tasks.changes.synonyms import embedding_table, frequent_words, neighbours, read_synonyms
    from train.tasks.classification import ClassificationDataset

    sources = run.other_corpora(files)
    experiment = elsewhere(run.experiment, files)
    dataset = dataset_of(experiment)
    if not isinstance(dataset, ClassificationDataset) or dataset.options.several:
        raise UserError(f"{run.path}: was not trained to give each text one label", "Attack a run of Classification.")
    examples = dataset.examples(sources, "validation")[: count or None]
    unlabelled = next((example for example in examples if example.label is None), None)
    if unlabelled is not None:
        raise UserError(f"{unlabelled.where}: has no {dataset.options.label}", "An attack needs the true labels.")
    mesh = inference_mesh(experiment.mesh)
    params, at = load_parameters(run, mesh, step=step, raw=raw)
    table: Synonyms = {}
    if "words" in budget.kinds:
        texts = [example.fields[name] for example in examples for name in dataset.changeable if name in example.fields]
        table = read_synonyms(synonyms) if synonyms else neighbours(embedding_table(run, params), run.tokenizer(), frequent_words(texts))
    evaluator = Evaluator(bind(experiment, mesh), experiment, mesh)
    asked = 0

    def probabilities(examples: list[Example]) -> np.ndarray:
        nonlocal asked
        asked += len(examples)
        return np.stack(dataset.answers(evaluator, params, examples, run.tokenizer()))

    labels = [dataset.place_of(example.label, example) for example in examples]
    found = attack(examples, labels, dataset.changeable, probabilities, table, budget)
    columns = {"text": dataset.options.text} | ({"pair": dataset.options.pair} if dataset.options.pair else {})
    records = []
    for before, after in zip(examples, found, strict=True):
        record = {name: after.example.fields[field] for field, name in columns.items()} | {dataset.options.label: before.label}
        record |= {f"original_{name}": before.fields[field] for field, name in columns.items()}
        records.append(record | {"changed": after.changed, "success": after.right_before and not after.right_after})
    return records, {"step": at} | summary(found) | {"queries": asked}
