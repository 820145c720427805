"""Names in running text, as a run finds them that tags words: what no pattern knows (data/anonymize/)."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from data.anonymize.patterns import Span
from data.errors import UserError
from train.tasks.batches import EvaluationRows
from train.tasks.examples import Example
from train.tasks.tagging import Reading, best_tags, open_tagger
from train.tasks.words import WordEncoder, spaces, windows_of, word_spans

KINDS = {
    "person": ("NAME", ("PER", "PERSON")),
    "place": ("PLACE", ("LOC", "LOCATION", "GPE")),
    "organisation": ("ORGANISATION", ("ORG", "ORGANISATION", "ORGANIZATION", "CORPORATION", "COMPANY")),
}
"""Of what can be asked for, the kind of its surrogates, and the types of tags that mean it, in any case of letters."""
SHORTEST = 16
"""Tokens of the shortest rows; each longer size is twice as long."""


class NameFinder:
    """lines -> the spans of names in each: see Finder in data/anonymize/text.py.

    A line has rows of its own, whose size depends on its own length alone, so that others beside it change nothing.
    """

    def __init__(self, run_dir: str, wanted: Sequence[str]):
        """wanted: of KINDS. UserError for a run that does not tag words with such types."""
        from train.checkpoints.checkpointer import load_parameters
        from train.devices.mesh import inference_mesh
        from train.evaluation.totals import Evaluator
        from train.objectives.bind import bind

        run, dataset = open_tagger(run_dir)
        types = dataset.kinds
        meant = {name: kind for kind, names in map(KINDS.__getitem__, wanted) for name in names}
        self._kinds = {name: meant[name.upper()] for name in types if name.upper() in meant}
        if not self._kinds:
            names = ", ".join(name for kind in wanted for name in KINDS[kind][1])
            raise UserError(f"{run_dir}: tags {', '.join(types)}, of which none is asked for", f"Asked for are {names}.")
        mesh = inference_mesh(run.experiment.mesh)
        self._params, _ = load_parameters(run, mesh)
        self._evaluator = Evaluator(bind(run.experiment, mesh), run.experiment, mesh)
        self._experiment, self._tokenizer = run.experiment, run.tokenizer()
        self._encoder = WordEncoder(self._tokenizer)
        self._room = dataset.options.length

    def __call__(self, lines: Sequence[str]) -> list[list[Span]]:
        waiting: dict[int, list[tuple[int, _Window]]] = {}
        for number, line in enumerate(lines):
            for window in self._windows(line):
                waiting.setdefault(self._size(window), []).append((number, window))
        own: list[list[tuple[tuple[int, int], str]]] = [[] for _ in lines]  # of each line the places of words, and their tags
        for length, windows in waiting.items():
            for (number, window), tags in zip(windows, self._tags(length, [window for _, window in windows]), strict=True):
                own[number] += list(zip(window.places, tags, strict=True))[slice(*window.own)]
        return [self._spans(sorted(tagged)) for tagged in own]

    def _windows(self, line: str) -> list["_Window"]:
        """The words of a line, in parts that fit a row: cut behind sentences where that does, else anywhere, and then overlapping."""
        places = [(start, end) for start, end in word_spans(line) if self._can_read(line[start:end])]
        words = [line[start:end] for start, end in places]
        sizes = [len(ids) for ids in self._encoder(words, spaces(words))]
        return [
            _Window(
                Reading(tuple(words[first:end]), before=words[first - 1] if first else ""),
                places[first:end],
                sum(sizes[first:end]),
                (kept[0] - first, kept[1] - first),
            )
            for first, end, kept in windows_of(words, sizes, self._room - 2)
        ]

    @functools.lru_cache(maxsize=1 << 16)  # noqa: B019 - one finder lives as long as its command
    def _can_read(self, word: str) -> bool:
        """Whether the run's tokenizer has ids for a word."""
        try:
            return bool(len(self._tokenizer.encode_inside(f" {word}")))
        except UserError:
            return False

    def _size(self, window: "_Window") -> int:
        length = SHORTEST
        while length < window.size + 2:
            length *= 2
        return min(length, self._room)

    @functools.cache  # noqa: B019
    def _dataset(self, length: int) -> Any:
        from train.sources.dataset import dataset_of

        data: Any = self._experiment.data
        return dataset_of(dataclasses.replace(self._experiment, data=dataclasses.replace(data, length=length)))

    def _tags(self, length: int, windows: list["_Window"]) -> list[list[str]]:
        dataset = self._dataset(length)
        examples = [Example({}, None, "", window.words) for window in windows]
        rows = _RowsOfOne(dataset, [dataset.item(example, self._tokenizer, False) for example in examples])
        outputs: list[list[np.ndarray]] = [[] for _ in examples]
        collect = rows.collector(outputs)
        assert collect is not None, "taggers have heads"
        self._evaluator.outputs(self._params, rows.batch, len(examples), collect)
        found = [dataset.found(example, output) for example, output in zip(examples, outputs, strict=True)]
        return [best_tags(scores, dataset.label_names) for scores in found]

    def _spans(self, tagged: list[tuple[tuple[int, int], str]]) -> list[Span]:
        """Of the words of a line, whichever windows they were read in."""
        found: list[Span] = []
        before = "O"
        for (start, stop), tag in tagged:
            mark, _, name = tag.partition("-")
            kind = self._kinds.get(name)
            if kind and mark == "I" and found and before == name:
                found[-1] = found[-1]._replace(end=stop)
            elif kind:
                found.append(Span(start, stop, kind))
            before = name if kind else "O"
        return found


@dataclasses.dataclass(frozen=True)
class _Window:
    """Words that are read together; places: where each stands in its line; size: ids of them all; own: [first, end) of those whose tags
    count, the others being there to be seen."""

    words: Reading
    places: list[tuple[int, int]]
    size: int
    own: tuple[int, int]


class _RowsOfOne(EvaluationRows):
    """A row for each."""

    def __init__(self, dataset: Any, items: list):
        self._dataset, self._items = dataset, items
        self._rows = [[number] for number in range(len(items))]
        self.rows_per_epoch = len(items)
