"""What users did with items, read from files and split by time. Token ids are numbers of items."""

import dataclasses
import functools
import io
import math
import os
from typing import Any, ClassVar, NamedTuple

import numpy as np
import xxhash

from data.errors import UserError
from data.files import storage
from data.records.record import LeftOut, Record, bad_row, lacks
from data.records.rows import read_records
from data.rows.order import fold
from train.kinds import Data, check_range
from train.tasks.recommending.item_words import latent_words, word_vectors

SPLITS = ("train", "validation", "test", "cold", "next")


@dataclasses.dataclass(frozen=True)
class Recommendation(Data):
    """Events of users with items. The last new item of a user is the test, the one before it validation; all else is learned from."""

    home: ClassVar[str] = "train.tasks.recommending.recommendation:RecommendationDataset"
    rows: ClassVar[str] = "interactions"
    how_to_get: ClassVar[str] = "Give events of users with items: --data.files events.csv."
    path_fields = (*Data.path_fields, "items", "users", "encoder", "towers")

    files: tuple[str, ...] = ()
    """Files of events: CSV, TSV, JSONL, JSON or Parquet, gzipped or not."""
    items: str = ""
    """File of items, with their texts and features. Empty: items are known by their events alone."""
    user: str = "user"
    """Column of the user."""
    item: str = "item"
    """Column of the item."""
    time: str = "time"
    """Column of the time, a number. Events at the same time are put in an order by a hash, not by the order of the file."""
    action: str = ""
    """Column of the kind of event, such as click or purchase. Empty: all are of one kind."""
    actions: tuple[str, ...] = ()
    """Weights of kinds of events in the loss, as NAME=WEIGHT, at least 0. Others weigh 1."""
    rating: str = ""
    """Column of a rating. Empty: every event counts."""
    threshold: float = 0.0
    """With `rating`: events that are rated lower are left out."""
    key: str = ""
    """Column of the item in `items`. Empty: as in events."""
    text: tuple[str, ...] = ("title",)
    """Columns of `items` that are read as an item's text. The first is its name in predictions."""
    features: tuple[str, ...] = ()
    """Further columns of `items`: numbers, or categories, several of which `|` separates."""
    users: str = ""
    """File of users, with a column named as `user` and their features. Empty: users are known by their events alone."""
    user_features: tuple[str, ...] = ()
    """Columns of `users`: numbers, or categories, several of which `|` separates."""
    encoder: str = ""
    """Run of a text encoder or decoder, whose pooled vectors of the texts are computed once and stay as they are. Empty: words,
    where the objective or the ranker reads them."""
    towers: str = ""
    """Run of the objective TwoTowers on the same events, whose scores the recommender weighs beside the others. Empty: none."""
    cold: float = 0.0
    """Share of the items, chosen by a hash, whose events are held out of training for the split `cold`. 0 to below 1."""
    leave_out: bool = False
    """Leave out rows that cannot be used, instead of stopping."""

    def __post_init__(self):
        check_range("data.", self, 0, "cold", high=1)
        for name, _, value in (one.partition("=") for one in self.actions):
            try:
                weight = float(value)
            except ValueError:
                weight = math.nan
            if not name or not 0 <= weight < math.inf:
                raise ValueError(f"data.actions has {name}={value}; give NAME=WEIGHT, a number of at least 0")
        if self.actions and not self.action:
            raise ValueError("data.actions belongs to data.action, the column that has them")


class Case(NamedTuple):
    """A user whose next item is asked for."""

    user: int
    history: np.ndarray
    """Numbers of events, in their order."""
    target: int
    """Number of an event; -1 where it is not known."""


class Log(NamedTuple):
    """Events, sorted by user and time, N of them; users and items by number."""

    users: list[str]
    items: list[str]
    names: list[str]
    """Of items, as predictions show them."""
    kinds: list[str]
    user_N: np.ndarray
    item_N: np.ndarray
    kind_N: np.ndarray
    time_N: np.ndarray
    train_U: list[np.ndarray]
    """Events of each user that are learned from."""
    cases: dict[str, list[Case]]
    held_I: np.ndarray
    """bool: items held out of training."""
    count_I: np.ndarray
    """How many events an item has that are learned from."""
    texts: list[str]
    features_IF: np.ndarray
    user_features_UF: np.ndarray


@functools.lru_cache(maxsize=2)
def read_log(o: Recommendation) -> Log:
    """The files as they are split. UserError, with file and line, for rows that cannot be used."""
    if (o.encoder or o.features) and not o.items:
        raise UserError("data.encoder and data.features need the file that has texts and features", "Give it: --data.items items.csv.")
    if bool(o.users) != bool(o.user_features):
        raise UserError("data.users and data.user_features belong together", "Give both: --data.users users.csv --data.user-features age.")
    left_out: LeftOut | None = LeftOut() if o.leave_out else None
    records = _records(o.items, o.key or o.item, left_out)
    number = {name: place for place, name in enumerate(records)}
    known = len(number)
    users: dict[str, int] = {}
    kinds: dict[str, int] = {name.partition("=")[0]: place for place, name in enumerate(o.actions)}
    rows = []
    for record in (record for path in o.files for record in read_records(path, left_out=left_out)):
        try:
            user, item, time = _name(record, o.user), _name(record, o.item), _number(record, o.time)
            kind = _name(record, o.action) if o.action else ""
            if o.rating and _number(record, o.rating) < o.threshold:
                continue
            if o.items and item not in number:
                raise UserError(f"{record.where}: {o.items} has no item {item!r}", "Add it there, or leave such rows out.")
        except UserError as error:
            what = str(error).partition("\n")[0].removeprefix(f"{record.where}: ")
            bad_row(record.where, what, "Mend the row, or leave such rows out: --data.leave-out.", left_out)
            continue
        place = number.setdefault(item, len(number))
        rows.append((users.setdefault(user, len(users)), place, kinds.setdefault(kind, len(kinds)), time))
    if not rows:
        raise UserError(f"{', '.join(o.files)}: no event can be used", "Give files with some.")
    user_N, item_N, kind_N = (np.array(column, np.int64) for column in list(zip(*rows, strict=True))[:3])
    time_N = np.array([row[3] for row in rows], np.float64)
    order = np.lexsort((fold(0, user_N, item_N), time_N, user_N))
    user_N, item_N, kind_N, time_N = user_N[order], item_N[order], kind_N[order], time_N[order]
    items = list(number)
    hashes = np.array([xxhash.xxh3_64(name.encode()).intdigest() for name in items], np.uint64)
    held_I = hashes / 2.0**64 < o.cold
    train_U, cases = _split(user_N, item_N, time_N, held_I, len(users))
    learned = np.concatenate(train_U) if train_U else np.zeros(0, np.int64)
    count_I = np.bincount(item_N[learned], minlength=len(items))
    texts = [_text(records[name], o) if position < known else "" for position, name in enumerate(items)]
    names = [text.partition("\n")[0] or name for text, name in zip(texts, items, strict=True)]
    features_IF = _features([records.get(name) for name in items], o.features, "data.features")
    user_records = _records(o.users, o.user, left_out)
    user_features_UF = _features([user_records.get(name) for name in users], o.user_features, "data.user_features")
    arrays = (user_N, item_N, kind_N, time_N)
    return Log(list(users), items, names, list(kinds), *arrays, train_U, cases, held_I, count_I, texts, features_IF, user_features_UF)


def _split(user_N, item_N, time_N, held_I, users: int) -> tuple[list[np.ndarray], dict[str, list[Case]]]:
    """Events of each user to learn from, and the cases of each split."""
    train, cases = [], {name: [] for name in SPLITS[1:]}
    ends = np.searchsorted(user_N, np.arange(users + 1))
    for user in range(users):
        mine = np.arange(ends[user], ends[user + 1])
        warm = mine[~held_I[item_N[mine]]]
        first = np.sort(np.unique(item_N[warm], return_index=True)[1])  # a list holds no items that the user has had already
        learned = warm
        if len(first) > 2:
            validation, test = first[-2], first[-1]
            learned = warm[:validation]
            cases["validation"].append(Case(user, learned, int(warm[validation])))
            cases["test"].append(Case(user, warm[:test], int(warm[test])))
        train.append(learned)
        cases["next"].append(Case(user, warm, -1))
        cold = mine[held_I[item_N[mine]]]
        if len(cold):
            before = learned[time_N[learned] <= time_N[cold[-1]]]
            if len(before):
                cases["cold"].append(Case(user, before, int(cold[-1])))
    return train, cases


def _records(path: str, column: str, left_out: LeftOut | None) -> dict[str, Record]:
    """The rows of a file by a column."""
    found: dict[str, Record] = {}
    for record in read_records(path, left_out=left_out) if path else ():
        try:
            name = _name(record, column)
            if name in found:
                raise UserError(f"{record.where}: {column} {name!r} was there before")
            found[name] = record
        except UserError as error:
            what = str(error).partition("\n")[0].removeprefix(f"{record.where}: ")
            bad_row(record.where, what, "Mend the row, or leave such rows out: --data.leave-out.", left_out)
    return found


def _name(record: Record, column: str) -> str:
    value = record.get(column)
    if value is None:
        raise lacks(record, column)
    if isinstance(value, bool | list | dict) or not str(value).strip():
        raise UserError(f"{record.where}: {column} {value!r} is no name")
    return str(value)


def _number(record: Record, column: str) -> float:
    if column not in record:
        raise lacks(record, column)
    try:
        value = float(record[column])
    except (TypeError, ValueError):
        value = math.nan
    if not math.isfinite(value):
        raise UserError(f"{record.where}: {column} {record[column]!r} is no number")
    return value


def _text(record: Record, o: Recommendation) -> str:
    """The columns of a text, one a line; lists and missing ones may be among them."""
    found = []
    for name in o.text:
        if name not in record:
            raise lacks(record, name)
        value = record[name]
        found.append(", ".join(map(str, value)) if isinstance(value, list) else str(value or ""))
    return "\n".join(part.strip() for part in found if part.strip())


def _features(records: list[Record | None], columns: tuple[str, ...], option: str) -> np.ndarray:
    """float32 [rows, F]: numbers standardised, 0 where missing; categories as 1 or 0."""
    parts = []
    for column in columns:
        if not any(record is not None and column in record for record in records):
            raise UserError(f"{option}: no row has a column {column!r}", "Name columns of the file.")
        values = [None if record is None else record.get(column) for record in records]
        numbers = _numbers(values)
        if numbers is not None:
            there = np.isfinite(numbers)
            scaled = (numbers - numbers[there].mean()) / max(numbers[there].std(), 1e-9)
            parts.append(np.where(there, scaled, 0.0)[:, None])
            continue
        sets = [set(value if isinstance(value, list) else str(value).split("|")) if value else set() for value in values]
        categories = sorted({str(one) for found in sets for one in found})
        parts.append(np.array([[one in found for one in categories] for found in sets], np.float32))
    return np.concatenate(parts, 1).astype(np.float32) if parts else np.zeros((len(records), 0), np.float32)


def _numbers(values: list[Any]) -> np.ndarray | None:
    """float64 [I], NaN where missing; None where some are no numbers."""
    try:
        return np.array([math.nan if value is None or value == "" else float(value) for value in values])
    except (TypeError, ValueError):
        return None


LATENT = 512
"""Width of the vectors of words that a model reads."""


@functools.lru_cache(maxsize=2)
def text_words(o: Recommendation) -> np.ndarray:
    """float32 [I, E]: unit vectors of the words of the items' texts, E at most LATENT; zeros for items without text."""
    return latent_words(word_vectors(read_log(o).texts), LATENT)


@functools.lru_cache(maxsize=2)
def text_vectors(o: Recommendation) -> np.ndarray:
    """float32 [I, E]: unit vectors of the items' texts, their common part taken off; zeros for items without text.

    They are kept in the user's cache, by the parameters' digests and the texts.
    """
    from train.checkpoints.journal import Journal
    from train.runs.directory import open_run

    texts = read_log(o).texts
    run = open_run(o.encoder)
    steps = Journal(run.path / "checkpoints").steps()
    digest = xxhash.xxh3_128("\0".join([run.identity, str(steps), *texts]).encode()).hexdigest()
    folder = storage.cache_folder()
    path = os.path.join(folder, "item_vectors", f"{digest}.npy") if folder and storage.can_write(folder) else ""
    if path and os.path.isfile(path):
        try:
            return np.load(path)
        except (ValueError, EOFError):
            pass  # computed again
    from train.generation.embeddings import load_embedder

    found = load_embedder(run)(texts)
    there = np.array([bool(text) for text in texts])
    found = np.where(there[:, None], found - found[there].mean(0), 0.0).astype(np.float32)
    found /= np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-9)
    if path:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        content = io.BytesIO()
        np.save(content, found)
        storage.write_atomically(path, content.getvalue())
    return found
