"""Labelled examples, and the files that they come from."""

import functools
import json
from collections import Counter
from typing import Any, NamedTuple

import xxhash

from data.errors import UserError
from data.records.record import LeftOut, Record, check_text, lacks
from data.records.rows import digest_of
from data.tokenizer import Tokenizer

YES, NO = " yes", " no"
"""What a model that writes says of a statement."""


class Example(NamedTuple):
    """One example of a task."""

    fields: dict[str, str]
    """The texts that it is made of, by the names that prompts use."""
    label: Any
    """What is to be found; None where a file does not say."""
    where: str
    """File and line, as an error names it."""
    parts: Any = ()
    """What else it is made of: the words of a sentence, the choices of a question."""


class TaskFile:
    """One file of examples, as a run sees it: what a Corpus is to text."""

    def __init__(self, path: str, dataset: Any, tokenizer: Tokenizer):
        self.path, self.dataset, self._tokenizer = path, dataset, tokenizer
        self.digest = digest_of(path)
        self.document_end = tokenizer.specials["document_end"]
        self.left_out: LeftOut = Counter()
        """How often each reason was why a row is left out."""

    def tokenizer(self) -> Tokenizer:
        return self._tokenizer

    @property
    def ids(self) -> int:
        """The ids of ordinary text, and of a document's start and end."""
        return max(self._tokenizer.base_size, 1 + max(self._tokenizer.document_start, self.document_end))

    @functools.cached_property
    def examples(self) -> list[Example]:
        return self.dataset.read(self)


def column(record: Record, name: str, *, empty: bool = False) -> str:
    """The text of a column; UserError where there is none, or an empty one unless it may be. Numbers are written out."""
    if name not in record or record[name] is None:
        raise lacks(record, name)
    value = record[name]
    if isinstance(value, bool | int | float):
        value = json.dumps(value)
    if not isinstance(value, str):
        raise UserError(f"{record.where}: {name} is a {type(value).__name__}", "Give text.")
    check_text(value, f"{record.where}: {name}")
    if not value.strip() and not empty:
        raise UserError(f"{record.where}: {name} is empty", "Give text, or leave such rows out: --data.leave-out.")
    return value


def told(reasons: LeftOut) -> str:
    """How many rows are left out, and the commonest reasons; "" for none."""
    if not reasons:
        return ""
    told = "; ".join(f"{why} ({count:,})" for why, count in reasons.most_common(3))
    return f"{reasons.total():,} rows are left out: {told}"


def content_hash(value: Any) -> int:
    """64 bits of anything that JSON can say."""
    content = json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)
    return xxhash.xxh3_64(content.encode("utf-8", "surrogatepass")).intdigest()
