"""Environments and files of comparisons as the data of a run, and what their rows have in common."""

import contextlib
import dataclasses
import functools
import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import xxhash

from data.errors import UserError
from data.records.record import Record
from data.records.rows import contents, read_records
from data.tokenizer import Tokenizer
from train.experiment import Experiment
from train.generation.chat import Chat
from train.rl.environments.environment import Environment
from train.runs.serialize import to_digest
from train.sources.encoding import Transcriber
from train.sources.records import comparisons_of

SAMPLE = 256
"""Rows that padding is reckoned from, and examples of a source that are examined before a run."""
LARGE = 0.1
"""A share of left-out examples that a user is told of."""


LOOKED_AT = 16
"""Prompts by which it is told whether an environment has conversations."""


class Examples:
    """One environment, or one file of comparisons, as a run sees it: what a Corpus is to text.

    Its files are read once, when they are first needed: another run, in the same process too, reads them anew.
    by_score: whether every score is learned from, or only which response is best.
    chat: how the model that is trained knows conversations.
    Attributes: path, its files or its name; digest, of what it is made of; document_end; ids, one more than the largest it can hold.
    """

    def __init__(self, source: Environment | str, tokenizer: Tokenizer, by_score: bool = False, chat: Chat = Chat()):
        self.source, self._tokenizer, self.by_score = fresh(source), tokenizer, by_score
        self.transcriber = Transcriber(tokenizer, chat)
        files = (source,) if isinstance(source, str) else source.files
        self.path = ", ".join(files) or type(source).__name__
        what = "" if isinstance(source, str) else json.dumps(to_digest(dataclasses.replace(source)), sort_keys=True)
        digest = xxhash.xxh3_128(what.encode() if not files else b"")
        for file in files:
            for piece in contents(file):
                digest.update(piece)
        if chat.template:  # other ids are learned from it
            digest.update(json.dumps([chat.template, chat.stop_ids]).encode())
        self.digest = digest.hexdigest()
        self.document_end = tokenizer.specials["document_end"]

    def tokenizer(self) -> Tokenizer:
        return self._tokenizer

    @functools.cached_property
    def ids(self) -> int:
        """The ids of ordinary text, of a document's start and end, and of roles where there are conversations."""
        tokenizer = self._tokenizer
        specials = [tokenizer.document_start, self.document_end]
        if self._converses():
            specials += self.transcriber.role_ids
        return max(tokenizer.base_size, 1 + max(specials), *(codes.ids[1] for codes in tokenizer.codes.values()))

    def _converses(self) -> bool:
        """Whether some prompt has turns, as far as the first ones tell; or a file that cannot be read yet, which is said elsewhere."""
        if isinstance(self.source, str):
            return any(row["messages"] for row in self.comparisons)
        if hasattr(self.source, "reply"):
            return True
        with contextlib.suppress(Exception):
            return any(self.source.prompt(0, row).messages for row in range(LOOKED_AT))
        return True

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


def fresh(option):
    """A copy of an environment, and of all options inside it, that has read nothing yet."""
    if dataclasses.is_dataclass(option) and not isinstance(option, type):
        fields = [field.name for field in dataclasses.fields(option) if field.init]
        return dataclasses.replace(option, **{name: fresh(getattr(option, name)) for name in fields})
    return tuple(map(fresh, option)) if type(option) is tuple else option


def evenly(items: Sequence, count: int) -> list:
    """At most `count` of them, in even distances."""
    return list(items) if len(items) <= count else [items[place * len(items) // count] for place in range(count)]


class ExampleBatches:
    """Rows of examples, one a row, padded at the end: a pure function of (seed, row).

    split: `train` is an endless stream, `validation` the first rows of what is kept from it. An example longer than the context is left
    out: its row has weight 0, and it counts as damaged. UserError for sources that would teach nothing, or could not be evaluated.
    remarks: warnings about the sources before a run; of `train` alone.
    """

    rows_per_epoch: int

    def __init__(self, experiment: Experiment, sources: list[Examples], split: str):
        self.length, self.seed, self.split, self.sources = experiment.model.context_length, experiment.seed, split, sources
        self.damaged: set[int] = set()
        self.damage = f"examples of more than {self.length} tokens"
        self._tokenizer, self._transcriber = sources[0].tokenizer(), sources[0].transcriber
        self.remarks: list[str] = []

    def batch(self, first_row: int, count: int) -> Any:
        """Rows [first_row, first_row + count)."""
        raise NotImplementedError

    @functools.cached_property
    def padding_share(self) -> float:
        return 1.0 - float(np.mean(self.batch(0, SAMPLE).segments != 0))

    def _examine(self, held: "ExampleBatches", rows: int, check: Callable[[int], list[str]]) -> None:
        """Before a run. held: the rows for validation, `rows` of which are evaluated. check: checks a source by its number."""
        self.remarks = [line for number in range(len(self.sources)) for line in check(number)]
        rows = min(rows or held.rows_per_epoch, held.rows_per_epoch)
        for first in range(0, rows, SAMPLE):
            batch = held.batch(first, min(SAMPLE, rows - first))
            if getattr(batch, "counts", batch.weights).any():
                return
        raise UserError(
            f"{', '.join(source.name for source in self.sources)}: none of {rows} examples for validation fits {self.length} tokens",
            "Give a longer --model.context-length, or more of them: --evaluation.rows, --data.validation.",
        )

    def _check_lengths(self, what: str, lengths: list[int]) -> list[str]:
        """Of a sample of a source. UserError where none has room."""
        if min(lengths, default=0) > self.length:
            raise UserError(
                f"{what}: none of {len(lengths)} fits {self.length} tokens: the shortest has {min(lengths)}",
                "Give a longer --model.context-length, or leave the source out.",
            )
        share = float(np.mean([length > self.length for length in lengths])) if lengths else 0.0
        return [f"{what}: about {share:.0%} have more than {self.length} tokens, and are left out"] if share >= LARGE else []


def fill(batch, place, ids: list[int], learned: list[int]) -> bool:
    """Write one example into a row; False, and nothing written, where it is longer than that."""
    length = len(ids) - 1
    if length > batch.tokens.shape[-1]:
        return False
    batch.tokens[place][:length], batch.targets[place][:length] = ids[:-1], ids[1:]
    batch.weights[place][:length], batch.segments[place][:length] = learned[1:], 1
    batch.positions[place][:length] = np.arange(length)
    return True
