"""Environments and files of comparisons as the data of a run: what they hold as tokens, by the number of a row."""

import dataclasses
import functools
import json
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import xxhash

from data.errors import UserError
from data.rows.mixture import Mixture, counts_of_sizes, counts_of_weights
from data.rows.order import fold, permute, shuffled
from data.text.rows import TextBatch, empty_batch
from data.tokenizer import Tokenizer, character_tokenizer, load_tokenizer
from train.experiment import Experiment
from train.rl.environments.text_tasks import Environment, Prompt, Reply, blaming
from train.rl.options import Demonstrations, Preferences, Prompts, RewardModelling
from train.runs.serialize import to_json
from train.sources.records import (
    COMPARED,
    ROLES,
    Record,
    comparisons_of,
    read_bytes,
    read_comparisons,  # noqa: F401 (with what it reads, for whoever has files alone)
    read_records,
    unused,
)

SAMPLE = 256
"""Rows that padding is reckoned from, and examples of a source that are looked at before a run."""
LARGE = 0.1
"""A share of what is left out that a user should hear of."""


class Examples:
    """One environment, or one file of comparisons, as a run sees it: what a Corpus is to text.

    Its files are read once, when they are first needed: another run, in the same process too, reads them anew.
    by_score: whether every score is learned from, or only which response is best.
    Attributes: path, its files or its name; digest, of what it is made of; document_end; ids, one more than the largest it can hold.
    """

    def __init__(self, source: Environment | str, tokenizer: Tokenizer, by_score: bool = False):
        self.source, self._tokenizer, self.by_score = fresh(source), tokenizer, by_score
        files = (source,) if isinstance(source, str) else source.files
        self.path = ", ".join(files) or type(source).__name__
        what = "" if isinstance(source, str) else json.dumps(to_json(dataclasses.replace(source)), sort_keys=True)
        digest = xxhash.xxh3_128(what.encode() if not files else b"")
        for file in files:
            digest.update(read_bytes(file))
        self.digest = digest.hexdigest()
        self.document_end = tokenizer.specials["document_end"]
        self.ids = tokenizer.size

    def tokenizer(self) -> Tokenizer:
        return self._tokenizer

    @property
    def name(self) -> str:
        """What an error calls it."""
        return self.path if isinstance(self.source, str) else f"{type(self.source).__name__} {', '.join(self.source.files)}".rstrip()

    @functools.cached_property
    def records(self) -> list[Record]:
        """Of a file of comparisons."""
        assert isinstance(self.source, str)
        return read_records(self.source)

    @functools.cached_property
    def comparisons(self) -> list[dict[str, Any]]:
        """What the records compare."""
        return comparisons_of(self.path, self.records, by_score=self.by_score)


def fresh(part):
    """A copy of an environment, and of all parts of it, that has read nothing yet."""
    if dataclasses.is_dataclass(part) and not isinstance(part, type):
        fields = [field.name for field in dataclasses.fields(part) if field.init]
        return dataclasses.replace(part, **{name: fresh(getattr(part, name)) for name in fields})
    return tuple(map(fresh, part)) if type(part) is tuple else part


def map_paths(change: Callable[[str], str], part):
    """The same with `change` of every path that it names, in all parts of it, in their place."""
    if dataclasses.is_dataclass(part) and not isinstance(part, type):
        fields = [field.name for field in dataclasses.fields(part) if field.init]
        changed: dict[str, Any] = {name: map_paths(change, getattr(part, name)) for name in fields}
        for name in getattr(part, "path_fields", ()):
            if changed[name]:
                changed[name] = change(changed[name])
        return dataclasses.replace(part, **changed)
    return tuple(map_paths(change, one) for one in part) if type(part) is tuple else part


def _tokenizer_of(experiment: Experiment) -> Tokenizer:
    data = experiment.data
    if experiment.start:
        return load_tokenizer(experiment.start)
    if isinstance(data, Preferences):
        raise UserError("comparisons need a run whose tokenizer and weights they start from", "Give one: --start RUN_DIR.")
    assert isinstance(data, Prompts | Demonstrations)
    return character_tokenizer("".join(environment.alphabet for environment in data.environments))


def open_examples(experiment: Experiment, tokenizer: Tokenizer | None = None) -> list[Examples]:
    """The sources that an experiment names, with the tokenizer given, that of the run it starts from, or one of their own characters."""
    data = experiment.data
    assert isinstance(data, Prompts | Demonstrations | Preferences)
    if tokenizer is None:
        tokenizer = _tokenizer_of(experiment)
    sources = data.files if isinstance(data, Preferences) else data.environments
    if isinstance(data, Preferences) and len(set(sources)) < len(sources):
        twice = next(path for path in sources if sources.count(path) > 1)
        raise UserError(f"data.files names {twice} twice", "Name it once, and weigh it: --data.weights.")
    scored = isinstance(experiment.objective, RewardModelling) and experiment.objective.loss == "score"
    return [Examples(source, tokenizer, by_score=scored) for source in sources]


# ------------------------------------------------------------------------------------------------------------------- tokens


def encode_prompt(prompt: Prompt, tokenizer: Tokenizer) -> list[int]:
    """The ids that a response to the prompt follows: those of a document's start, then the text, or the turns of a conversation."""
    end = tokenizer.specials["document_end"]
    if not prompt.messages:
        return [end, *tokenizer.encode(prompt.text).tolist()]
    ids = []
    for role, text in prompt.messages:
        ids += [tokenizer.specials[ROLES[role]], *tokenizer.encode(text).tolist(), end]
    return [end, *ids, tokenizer.specials[ROLES["assistant"]]]


def encode_reply(reply: Reply, ended: bool, tokenizer: Tokenizer) -> list[int]:
    """The ids between two turns of the policy: the end of the first, if it did not draw that itself, what was said to it, and its role."""
    end = tokenizer.specials["document_end"]
    text = tokenizer.encode(reply.text).tolist()
    return [*([] if ended else [end]), tokenizer.specials[ROLES[reply.role]], *text, end, tokenizer.specials[ROLES["assistant"]]]


def encode_demonstration(prompt: Prompt, response: str, tokenizer: Tokenizer, learn_prompt: bool) -> tuple[list[int], list[int]]:
    """Ids of prompt and response with the end of the document, and 1 for those that are learned: responses with their ends, all turns of
    the assistant; with learn_prompt everything but the first id, which nothing precedes."""
    end = tokenizer.specials["document_end"]
    ids = encode_prompt(prompt, tokenizer)
    learned = [0] * len(ids)
    place = 1
    for role, text in prompt.messages:
        length = len(tokenizer.encode(text)) + 2  # with its role and its end
        if role == "assistant":
            learned[place + 1 : place + length] = [1] * (length - 1)
        place += length
    if learn_prompt:
        learned = [0] + [1] * (len(ids) - 1)
    answer = [*tokenizer.encode(response).tolist(), end]
    return ids + answer, learned + [1] * len(answer)


def decode_responses(tokenizer: Tokenizer, prompts: list[list[int]], responses, mask) -> list[str]:
    """The texts of responses int32 [B, R] up to their masks' ends, as `read_on` gives them."""
    drawn = zip(prompts, np.asarray(responses), np.asarray(mask), strict=True)
    return [read_on(tokenizer, prompt, ids[: int(kept.sum())].tolist()) for prompt, ids, kept in drawn]


def read_on(tokenizer: Tokenizer, before: list[int], ids: list[int]) -> str:
    """The text of ids, as it reads after others, without a stop token at the end."""
    ids = ids[:-1] if ids and ids[-1] == tokenizer.specials["document_end"] else ids
    return tokenizer.decode(before + ids)[len(tokenizer.decode(before)) :]


def check_texts(tokenizer: Tokenizer, texts: Iterable[tuple[str, str]]) -> None:
    """UserError for the first of texts, each behind what an error calls it, that a tokenizer cannot encode."""
    texts = list(texts)
    try:
        tokenizer.encode("".join(sorted(set().union(*(text for _, text in texts)))))  # a few thousand characters, however many texts
    except UserError:
        for name, text in texts:
            try:
                tokenizer.encode(text)
            except UserError as error:
                what = str(error).partition("\n")[0]
                raise UserError(f"{name}: {what}", "Leave that out, or start from a run whose tokenizer has it.") from None


def evenly(items: Sequence, count: int) -> list:
    """At most `count` of them, in even distances."""
    return list(items) if len(items) <= count else [items[place * len(items) // count] for place in range(count)]


# --------------------------------------------------------------------------------------------------------------------- rows


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


class ExampleBatches:
    """Rows of demonstrations or comparisons, one a row, padded at the end: a pure function of (seed, row).

    split: `train` is an endless stream, `validation` the first rows of what is kept from it. An example longer than the context is left
    out: its row has weight 0, and it counts as damaged. UserError for sources that would teach nothing, or could not be evaluated.
    remarks: what a user should hear of the sources before a run; of `train` alone.
    """

    def __init__(self, experiment: Experiment, sources: list[Examples], split: str):
        self.length, self.seed, self.split = experiment.model.context_length, experiment.seed, split
        data = experiment.data
        assert isinstance(data, Demonstrations | Preferences)
        self.data, self.sources = data, sources
        self.damaged: set[int] = set()
        self.damage = f"examples of more than {self.length} tokens"
        self._tokenizer, self._end = sources[0].tokenizer(), sources[0].document_end
        if isinstance(self.data, Preferences):
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
            self.validation_rows = sum(size for _, size in self._spans)
        else:
            self._mixture = Mixture(counts_of_weights(self.data.weights or (1.0,) * len(sources)))
            self.validation_rows = self.data.validation
        self.remarks: list[str] = []
        if split == "train":
            look = self._look_at_comparisons if isinstance(self.data, Preferences) else self._look_at_demonstrations
            self.remarks = [line for number in range(len(sources)) for line in look(number)]
            self._check_validation(experiment)

    @functools.cached_property
    def padding_share(self) -> float:
        return 1.0 - float(np.mean(self.batch(0, SAMPLE).segments != 0))

    # ----------------------------------------------------------------------------------------------------------- before a run

    def _look_at_comparisons(self, number: int) -> list[str]:
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
        held, kept = ([row["prompt"] for row in self._part(number, *span)] for span in ((0, first), (first, size)))
        if repeated := len(set(held) & set(kept)):
            said.append(f"{source.path}: {repeated} of {len(set(held))} prompts for validation stand in training comparisons too")
        for split, span in (("training", (first, size)), ("validation", (0, first))):
            lengths = [max(map(len, self._encoded(row))) - 1 for row in evenly(self._part(number, *span), SAMPLE)]
            said += self._check_lengths(f"{source.path}: comparisons for {split}", lengths)
        return said

    def _look_at_demonstrations(self, number: int) -> list[str]:
        source, said = self.sources[number], []
        environment = source.source
        assert isinstance(environment, Environment) and isinstance(self.data, Demonstrations)
        for split, seed in (("train", self.seed), ("validation", 0)):
            shown = []
            with blaming(source.name, f"prompts for {split}"):
                prompts = environment.examined(seed, split)
            for row, prompt in enumerate(prompts):
                with blaming(source.name, prompt.name):
                    shown.append(environment.transcript(prompt, seed, row))
            check_texts(self._tokenizer, ((prompt.name, text) for prompt, response in shown for text in (*prompt.texts, response)))
            if not self.data.learn_prompts and not any(response for _, response in shown):
                raise UserError(f"{source.name}: every response for {split} is empty: there is nothing to learn", "Give responses.")
            lengths = [
                len(encode_demonstration(prompt, response, self._tokenizer, False)[0]) - 1 for prompt, response in evenly(shown, SAMPLE)
            ]
            said += self._check_lengths(f"{source.name}: examples for {split}", lengths)
        return said + environment.remarks()

    def _check_lengths(self, what: str, lengths: list[int]) -> list[str]:
        """Of a sample of a source. UserError where none has room."""
        if min(lengths, default=0) > self.length:
            raise UserError(
                f"{what}: none of {len(lengths)} fits {self.length} tokens: the shortest has {min(lengths)}",
                "Give a longer --model.context-length, or leave the source out.",
            )
        share = float(np.mean([length > self.length for length in lengths])) if lengths else 0.0
        return [f"{what}: about {share:.0%} have more than {self.length} tokens, and are left out"] if share >= LARGE else []

    def _check_validation(self, experiment: Experiment) -> None:
        """UserError where no row that is evaluated would count."""
        held = ExampleBatches(experiment, self.sources, "validation")
        rows = min(experiment.evaluation.rows or held.validation_rows, held.validation_rows)
        for first in range(0, rows, SAMPLE):
            batch = held.batch(first, min(SAMPLE, rows - first))
            if (batch.counts if isinstance(batch, Comparisons) else batch.weights).any():
                return
        raise UserError(
            f"{', '.join(source.name for source in self.sources)}: none of {rows} examples for validation fits {self.length} tokens",
            "Give a longer --model.context-length, or more of them: --evaluation.rows, --data.validation.",
        )

    # ------------------------------------------------------------------------------------------------------------------- rows

    def batch(self, first_row: int, count: int) -> TextBatch | Comparisons:
        """Rows [first_row, first_row + count)."""
        numbers = np.arange(first_row, first_row + count)
        return self._comparisons(numbers) if isinstance(self.data, Preferences) else self._demonstrations(numbers)

    def _demonstrations(self, numbers) -> TextBatch:
        batch = empty_batch(numbers, self.length)
        which, local = self._mixture(numbers)
        for place, (number, index) in enumerate(zip(which.tolist(), local.tolist(), strict=True)):
            environment = self.sources[number].source
            seed = self.seed if self.split == "train" else 0
            with blaming(self.sources[number].name, f"row {numbers[place]}"):
                prompt, response = environment.transcript(environment.prompt(seed, index, self.split), seed, index)
            ids, learned = encode_demonstration(
                prompt, response, self._tokenizer, isinstance(self.data, Demonstrations) and self.data.learn_prompts
            )
            if not _fill(batch, place, ids, learned):
                self.damaged.add(int(numbers[place]))
        return batch

    def _comparisons(self, numbers) -> Comparisons:
        shape = (len(numbers), self._responses, self.length)
        tokens, targets, segments, positions = (np.zeros(shape, np.int32) for _ in range(4))
        weights, best = np.zeros(shape, np.float32), np.zeros(len(numbers), np.int32)
        present, counts = np.zeros(shape[:2], np.float32), np.zeros(len(numbers), np.float32)
        scores = np.full(shape[:2], np.nan, np.float32)
        batch = Comparisons(tokens, targets, segments, positions, weights, best, present, scores, counts, numbers.astype(np.int32))
        which, local = self._mixture(numbers)
        for place, (number, index) in enumerate(zip(which.tolist(), local.tolist(), strict=True)):
            first, size = self._spans[number]
            index = index % size if self.split == "validation" else shuffled(index, size, int(fold(self.seed, number)))[1]
            row = self._tables[number][_spread(int(index) + first, len(self._tables[number]), number)]
            prompt, fits = _prompt_of(row), True
            for k, response in enumerate(row["responses"]):
                encoded, learned = encode_demonstration(prompt, response, self._tokenizer, False)
                fits &= _fill(batch, (place, k), encoded, learned)
                present[place, k], scores[place, k] = 1, row["scores"][k]
            best[place], counts[place] = row["best"], float(fits)
            if not fits:
                self.damaged.add(int(numbers[place]))
        return batch

    def _part(self, number: int, first: int, size: int) -> list[dict[str, Any]]:
        """Some comparisons of a source, in the order that decides what is validation."""
        table = self._tables[number]
        return [table[place] for place in permute(np.arange(first, first + size), len(table), fold(1, number)).tolist()]

    def _encoded(self, row: dict[str, Any]) -> list[list[int]]:
        """The ids of a comparison's prompt with each response."""
        prompt = _prompt_of(row)
        return [encode_demonstration(prompt, response, self._tokenizer, False)[0] for response in row["responses"]]


def _prompt_of(row: dict[str, Any]) -> Prompt:
    return Prompt(row["prompt"], messages=row["messages"], where=row["where"])


def _unused(path: str, names: Sequence[str]) -> list[str]:
    return [f"{path}: not used: {', '.join(names)}"] if names else []


def _spread(index: int, size: int, number: int) -> int:
    """A place in a file, by a fixed permutation, so that validation is a fair sample of a sorted file."""
    return int(permute(np.int64(index), size, fold(1, number)))


def _fill(batch, place, ids: list[int], learned: list[int]) -> bool:
    """Write one example into a row; False, and nothing written, where it is longer than that."""
    length = len(ids) - 1
    if length > batch.tokens.shape[-1]:
        return False
    batch.tokens[place][:length], batch.targets[place][:length] = ids[:-1], ids[1:]
    batch.weights[place][:length], batch.segments[place][:length] = learned[1:], 1
    batch.positions[place][:length] = np.arange(length)
    return True
