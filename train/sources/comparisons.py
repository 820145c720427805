"""Comparisons: prompts with several responses, and which of them is best."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from data.errors import UserError
from data.rows.mixture import Mixture, counts_of_sizes, counts_of_weights
from data.rows.order import fold, permute, shuffled
from data.tokenizer import Tokenizer, load_tokenizer
from train.experiment import Experiment
from train.kinds import Dataset
from train.rl.environments.environment import Prompt
from train.rl.options import Preferences
from train.sources.encoding import check_texts
from train.sources.examples import SAMPLE, ExampleBatches, Examples, evenly, fill
from train.sources.records import COMPARED, unused
from train.sources.text import check_samples, continuations


class Comparisons(NamedTuple):
    """B prompts with K responses each. tokens, targets, segments, positions int32 [B, K, T]; weights float32 [B, K, T], 1 on the tokens of
    responses; best int32 [B]; present float32 [B, K], 0 where there are fewer responses; scores float32 [B, K], NaN where the file has
    none; counts float32 [B], 0 on rows of padding; rows int32 [B]."""

    tokens: Any
    targets: Any
    segments: Any
    positions: Any
    weights: Any
    best: Any
    present: Any
    scores: Any
    counts: Any
    rows: Any


class ComparisonBatches(ExampleBatches):
    """Rows of comparisons."""

    def __init__(self, experiment: Experiment, sources: list[Examples], split: str):
        super().__init__(experiment, sources, split)
        assert isinstance(experiment.data, Preferences)
        self.data = experiment.data
        self.length -= 1  # a reward model reads the last token too
        self._tables = [source.comparisons for source in sources]
        self._responses = max(len(row["responses"]) for table in self._tables for row in table)
        held = [max(1, min(self.data.validation, len(table) // 4)) for table in self._tables]
        for source, table in zip(sources, self._tables, strict=True):
            if len(table) < 2:
                raise UserError(f"{source.path}: too few comparisons to keep some for validation", "Give at least two.")
        self._spans = {
            "train": [(count, len(table) - count) for count, table in zip(held, self._tables, strict=True)],
            "validation": [(0, count) for count in held],
        }[split]
        weights = self.data.weights
        self._mixture = Mixture(counts_of_weights(weights) if weights else counts_of_sizes(np.array([size for _, size in self._spans])))
        self.rows_per_epoch = sum(size for _, size in self._spans)
        if split == "train":
            self._examine(ComparisonBatches(experiment, sources, "validation"), experiment.evaluation.rows, self._check_source)

    def batch(self, first_row: int, count: int) -> Comparisons:
        numbers = np.arange(first_row, first_row + count)
        batch = empty_comparisons(numbers, self._responses, self.length)
        which, local = self._mixture(numbers)
        for place, (number, index) in enumerate(zip(which.tolist(), local.tolist(), strict=True)):
            first, size = self._spans[number]
            index = index % size if self.split == "validation" else shuffled(index, size, int(fold(self.seed, number)))[1]
            row = self._tables[number][_spread(int(index) + first, len(self._tables[number]), number)]
            prompt, fits = _prompt_of(row), True
            for k, response in enumerate(row["responses"]):
                encoded, learned = self._transcriber.demonstration(prompt, response)
                fits &= fill(batch, (place, k), encoded, learned)
                batch.present[place, k], batch.scores[place, k] = 1, row["scores"][k]
            batch.best[place], batch.counts[place] = row["best"], float(fits)
            if not fits:
                self.damaged.add(int(numbers[place]))
        return batch

    def _check_source(self, number: int) -> list[str]:
        source, table = self.sources[number], self._tables[number]
        if source.by_score:
            for row in table:
                if not all(map(math.isfinite, row["scores"])):
                    raise UserError(f"{row['where']}: objective.loss is score, and there are none", 'Give "scores" in every record.')
        check_texts(
            self._tokenizer,
            ((row["where"], text) for row in table for text in (*_prompt_of(row).texts, *row["responses"])),
        )
        said, left = _unused(source.path, unused(source.records, COMPARED)), len(source.records) - len(table)
        if left:
            said.append(f"{source.path}: {left} of {len(source.records)} comparisons are left out: of equal responses, or equal scores")
        first, size = self._spans[number]
        held, kept = ([row["prompt"] for row in self._span(number, *span)] for span in ((0, first), (first, size)))
        if repeated := len(set(held) & set(kept)):
            said.append(f"{source.path}: {repeated} of {len(set(held))} prompts for validation stand in training comparisons too")
        for split, span in (("training", (first, size)), ("validation", (0, first))):
            lengths = [max(map(len, self._encoded(row))) - 1 for row in evenly(self._span(number, *span), SAMPLE)]
            said += self._check_lengths(f"{source.path}: comparisons for {split}", lengths)
        return said

    def _span(self, number: int, first: int, size: int) -> list[dict[str, Any]]:
        """Some comparisons of a source, in the order that decides what is validation."""
        table = self._tables[number]
        return [table[place] for place in permute(np.arange(first, first + size), len(table), fold(1, number)).tolist()]

    def _encoded(self, row: dict[str, Any]) -> list[list[int]]:
        """The ids of a comparison's prompt with each response."""
        prompt = _prompt_of(row)
        return [self._transcriber.demonstration(prompt, response)[0] for response in row["responses"]]


def _prompt_of(row: dict[str, Any]) -> Prompt:
    return Prompt(row["prompt"], messages=row["messages"], where=row["where"])


def _unused(path: str, names: Sequence[str]) -> list[str]:
    return [f"{path}: not used: {', '.join(names)}"] if names else []


def _spread(index: int, size: int, number: int) -> int:
    """A place in a file, by a fixed permutation, so that validation is a fair sample of a sorted file."""
    return int(permute(np.int64(index), size, fold(1, number)))


def empty_comparisons(numbers, responses: int, length: int) -> Comparisons:
    """Rows of padding."""
    shape = (len(numbers), responses, length)
    tokens, targets, segments, positions = (np.zeros(shape, np.int32) for _ in range(4))
    weights, best = np.zeros(shape, np.float32), np.zeros(len(numbers), np.int32)
    present, counts = np.zeros(shape[:2], np.float32), np.zeros(len(numbers), np.float32)
    scores = np.full(shape[:2], np.nan, np.float32)
    return Comparisons(tokens, targets, segments, positions, weights, best, present, scores, counts, numbers.astype(np.int32))


class ComparisonDataset(Dataset):
    """Files of comparisons."""

    options: Preferences
    experiment: Experiment
    counted = "examples"

    def open(self, tokenizer: Tokenizer | None = None) -> list[Examples]:
        files, start = self.options.files, self.experiment.start
        if tokenizer is None:
            if not start:
                raise UserError("comparisons need a run whose tokenizer and weights they start from", "Give one: --start RUN_DIR.")
            tokenizer = load_tokenizer(start)
        if len(set(files)) < len(files):
            twice = next(path for path in files if files.count(path) > 1)
            raise UserError(f"data.files names {twice} twice", "Name it once, and weigh it: --data.weights.")
        by_score = getattr(self.experiment.objective, "by_score", False)
        return [Examples(file, tokenizer, by_score=by_score, chat=self.chat) for file in files]

    def batches(self, sources: list, split: str = "train") -> ComparisonBatches:
        return ComparisonBatches(self.experiment, sources, split)

    def empty(self, count: int) -> Comparisons:
        """Of two responses: how many there are is known from the files alone."""
        return empty_comparisons(np.arange(count), 2, self.experiment.model.context_length - 1)

    def check(self, sources: list) -> None:
        check_samples(self.experiment, sources)

    def samples(self, run, params, sources: list, said: Callable[[str], None]):
        return continuations(run, params)
