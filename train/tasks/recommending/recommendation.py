"""Lists of items that a user is likely to take next: rows of events, and an evaluation that ranks every item."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from data.errors import UserError
from data.records.rows import digest_of
from data.rows.order import fold, shuffled
from data.tokenizer import Tokenizer, character_tokenizer
from train.experiment import Experiment
from train.kinds import Application, Data, Dataset
from train.tasks.metrics.diversity import mmr
from train.tasks.metrics.ranking import best, ranking_scores, unseen
from train.tasks.metrics.scores import Scores
from train.tasks.recommending.interactions import SPLITS, Case, Log, Recommendation, read_log, text_vectors, text_words

KS = (5, 10, 20)
LIST = 10
"""Items of a list that is shown or made diverse."""
CANDIDATES = 50
"""The best items of a user, of which diverse lists are made."""
RANKED = 100
"""Places of a list that count: beyond, an item is as good as not found."""


class ItemBatch(NamedTuple):
    """B rows of T events: tokens (items), kinds, targets (the items after), segments, positions int32 [B, T]; weights float32 [B, T], 0
    where nothing is predicted; rows, users int32 [B]."""

    tokens: Any
    kinds: Any
    targets: Any
    weights: Any
    segments: Any
    positions: Any
    rows: Any
    users: Any


class EventFile:
    """A file of events or items, as a run sees it: what a Corpus is to text. Its tokenizer is that of numbers of items in print."""

    def __init__(self, path: str, dataset: "RecommendationDataset"):
        self.path, self.dataset = path, dataset
        self.digest = digest_of(path)
        self._tokenizer = character_tokenizer("0123456789 ")
        self.document_end, self.ids = self._tokenizer.specials["document_end"], self._tokenizer.size

    def tokenizer(self) -> Tokenizer:
        return self._tokenizer


class EventBatches:
    """Rows of training: row r is a stretch of one user's events. A user with many has a row for every T of them; where a row begins is
    drawn anew each time, from the seed and the row."""

    damaged: Sequence = ()
    damage = "events"
    padding_share = 0.0

    def __init__(self, dataset: "RecommendationDataset"):
        self._dataset, self._length, self._seed = dataset, dataset.length, dataset.experiment.seed
        self._users = [
            user for user, events in enumerate(dataset.log.train_U) for _ in range(-(-(len(events) - 1) // self._length))
        ]  # one event alone says nothing of the next
        self.rows_per_epoch = len(self._users)

    def batch(self, first_row: int, count: int) -> ItemBatch:
        rows = np.arange(first_row, first_row + count)
        places = shuffled(rows, self.rows_per_epoch, self._seed)[1]
        draws = fold(self._seed, rows, 1)
        made = []
        for place, draw in zip(places.tolist(), draws.tolist(), strict=True):
            events = self._dataset.log.train_U[self._users[place]]
            begin = draw % max(len(events) - self._length, 1)
            made.append(events[begin : begin + self._length + 1])
        return self._dataset.make(made, rows, [True] * count)


class CaseBatches:
    """Rows of an evaluation: the last events of each case, and at their end its target."""

    damaged: Sequence = ()
    damage = "events"
    padding_share = 0.0

    def __init__(self, dataset: "RecommendationDataset", cases: list[Case]):
        self._dataset, self._cases, self.rows_per_epoch = dataset, cases, len(cases)

    def batch(self, first_row: int, count: int) -> ItemBatch:
        cases = self._cases[first_row : first_row + count]
        made = [np.append(case.history[-self._dataset.length :], case.target) for case in cases]
        made += [np.zeros(0, np.int64)] * (count - len(cases))
        return self._dataset.make(made, np.arange(first_row, first_row + count), [False] * count)


class RecommendationDataset(Dataset):
    """Events of users with items."""

    options: Recommendation
    experiment: Experiment
    takes = frozenset({"split", "batch_size"})
    evaluates_all = True
    counts_tokens = False
    counted = "users"

    # ---------------------------------------------------------------------------------------------------------- files

    def paths(self) -> tuple[str, ...]:
        o = self.options
        return (*o.files, *(path for path in (o.items, o.users) if path and o.files))

    def elsewhere(self, paths: tuple[str, ...]) -> Data:
        raise UserError("a recommender knows the items and users that it was trained on alone", "Leave --files and --shards out.")

    def open(self, tokenizer: Tokenizer | None = None) -> list[EventFile]:
        return [EventFile(path, self) for path in self.paths()]

    def describe(self, source: EventFile) -> str:
        log = self.log
        return f"of {len(log.users):,} users, {len(log.items):,} items, {len(log.item_N):,} events"

    @property
    def log(self) -> Log:
        return read_log(dataclasses.replace(self.options, towers=""))  # the same for a run and its towers

    @property
    def length(self) -> int:
        return self.experiment.model.context_length

    def widths(self) -> dict[str, int]:
        """Sizes of a NextItem or TwoTowers, by its fields."""
        found = {"items": len(self.log.items), "text_width": self.texts().shape[1], "feature_width": self.log.features_IF.shape[1]}
        return found | {"kinds": len(self.log.kinds), "users": len(self.log.users), "user_width": self.log.user_features_UF.shape[1]}

    def texts(self) -> np.ndarray:
        """float32 [I, E]: vectors of the items' texts, as the objective reads them."""
        if self.options.encoder:
            return text_vectors(self.options)
        reads_words = getattr(self.experiment.objective, "reads_words", False) and any(self.log.texts)
        return text_words(self.options) if reads_words else np.zeros((len(self.log.items), 0), np.float32)

    def facts(self) -> np.ndarray:
        """See NextItemLoss."""
        return np.concatenate([self.texts(), self.log.features_IF, np.log1p(self.log.count_I)[:, None]], 1).astype(np.float32)

    def check(self, sources: list) -> None:
        if not EventBatches(self).rows_per_epoch:
            raise UserError(f"{self.options.files[0]}: no user has two events to learn from", "Give more events.")

    def can_validate(self, sources: list) -> bool:
        return bool(self.log.cases["validation"])

    # ----------------------------------------------------------------------------------------------------------- rows

    def batches(self, sources: list, split: str = "train") -> EventBatches | CaseBatches:
        if split not in SPLITS:
            raise UserError(f"--split {split}: no split of events", f"Choose from {', '.join(SPLITS)}.")
        return EventBatches(self) if split == "train" else CaseBatches(self, self.log.cases[split])

    def empty(self, count: int) -> ItemBatch:
        return self._blank(np.arange(count))

    def _blank(self, rows: np.ndarray) -> ItemBatch:
        ints = [np.zeros((len(rows), self.length), np.int32) for _ in range(5)]
        tokens, kinds, targets, segments, positions = ints
        users = np.zeros(len(rows), np.int32)
        return ItemBatch(tokens, kinds, targets, np.zeros(tokens.shape, np.float32), segments, positions, rows.astype(np.int32), users)

    def make(self, sequences: list[np.ndarray], rows: np.ndarray, learned: list[bool]) -> ItemBatch:
        """sequences: numbers of events, whose last one is predicted alone unless it is learned from them all; -1: not known."""
        log, batch = self.log, self._blank(rows)
        weights_K = self._kind_weights()
        for row, (events, every) in enumerate(zip(sequences, learned, strict=True)):
            size = max(len(events) - 1, 0)
            batch.users[row] = log.user_N[events[0]] if size else 0
            batch.tokens[row, :size], batch.kinds[row, :size] = log.item_N[events[:-1]], log.kind_N[events[:-1]]
            batch.segments[row, :size], batch.positions[row, :size] = 1, np.arange(size)
            if every:
                batch.targets[row, :size], batch.weights[row, :size] = log.item_N[events[1:]], weights_K[log.kind_N[events[1:]]]
            elif size and events[-1] >= 0:
                batch.targets[row, size - 1], batch.weights[row, size - 1] = log.item_N[events[-1]], 1
        return batch

    def _kind_weights(self) -> np.ndarray:
        given = {name: float(value) for name, _, value in (one.partition("=") for one in self.options.actions)}
        return np.array([given.get(name, 1.0) for name in self.log.kinds], np.float32)

    # ----------------------------------------------------------------------------------------------------- evaluation

    def evaluate(
        self, evaluator, params, sources: list, *, split: str = "validation", rows: int = 0, between: Callable[[], None] = lambda: None
    ) -> dict:
        """{"loss", "users", "recall@10", ...}: every item is ranked but those that the user has had. See `Ranked`."""
        batches = self.batches(sources, split)
        if isinstance(batches, EventBatches) or not batches.rows_per_epoch:
            raise UserError(f"--split {split}: has no users whose next item is asked for", "Choose validation, test, cold or next.")
        cases = self.log.cases[split][: rows or None]
        ranked = Ranked(self, cases, split, self._similar(params))
        totals = evaluator.totals(params, batches.batch, len(cases), between=between, collect=ranked.add)
        found = {name: value for name, value in evaluator.result(totals).items() if name != "tokens"}
        self.ranked = ranked
        return found | ranked.scores().values | {self.counted: len(cases)}

    def _similar(self, params) -> np.ndarray:
        """[I, D]: what says how alike items are: their features, where there are some, else their texts, else what was learned."""
        widths = self.widths()
        text, features = widths["text_width"], widths["feature_width"]
        facts = np.asarray(jax.device_get(params["item_facts"]))
        if features:
            return facts[:, text : text + features]
        return facts[:, :text] if text else np.asarray(jax.device_get(params["items"]["embedding"]["table"]))

    def details(self) -> "Ranked | None":
        return getattr(self, "ranked", None)

    # -------------------------------------------------------------------------------------------------------- at work

    def application(self, run: Any, *, step: int | None = None, raw: bool = False) -> Application:
        from train.apps.recommending.recommender import Recommender, Scoring
        from train.objectives.tasks.towers import TwoTowers
        from train.runs.directory import open_run
        from train.sources.dataset import dataset_of

        scoring = Scoring(run, self, step=step, raw=raw)
        if not self.options.towers:
            return Recommender(scoring)
        other = open_run(self.options.towers)
        dataset = dataset_of(other.experiment)
        if not isinstance(dataset, RecommendationDataset) or not isinstance(other.experiment.objective, TwoTowers):
            raise UserError(f"data.towers: {other.path} is no run of two towers", "Give one of configs/tasks/towers.py.")
        dataset.place = other.path
        return Recommender(scoring, Scoring(other, dataset))


class Ranked:
    """The lists of an evaluation. Cold items are also ranked among themselves."""

    def __init__(self, dataset: RecommendationDataset, cases: list[Case], split: str, similar_ID: np.ndarray):
        self.log, self.cases, self.similar_ID = dataset.log, cases, similar_ID
        self.weight = getattr(dataset.experiment.objective, "diversity", 0) / 100
        self.split = split
        self.lists: list[list[int]] = [[] for _ in cases]
        self.diverse: list[list[int]] = [[] for _ in cases]
        self.among_cold: list[list[int]] = [[] for _ in cases]

    def add(self, outputs: dict) -> None:
        """outputs: as of NextItemLoss."""
        for row, scores_I in zip(outputs["rows"].tolist(), outputs["scores"], strict=True):
            if row >= len(self.cases):
                continue
            open_I = unseen(scores_I, self.log.item_N[self.cases[row].history])
            self.lists[row] = best(open_I, RANKED)
            if self.weight:
                candidates = self.lists[row][:CANDIDATES]
                chosen = mmr(open_I[candidates], self.similar_ID[candidates], LIST, self.weight)
                self.diverse[row] = [candidates[place] for place in chosen]
            if self.split == "cold":
                self.among_cold[row] = best(np.where(self.log.held_I, open_I, -np.inf), RANKED)

    def scores(self) -> Scores:
        """Measures of the lists; of diverse ones with mmr_ before, of cold items among themselves with among_cold_."""
        if self.split == "next":
            return Scores({})
        truth = [{int(self.log.item_N[case.target])} for case in self.cases]
        items = len(self.log.items)
        parts = {"": ranking_scores(truth, self.lists, ks=KS, items=items, vectors=self.similar_ID)}
        if self.weight:
            parts["mmr_"] = ranking_scores(truth, self.diverse, ks=(LIST,), items=items, vectors=self.similar_ID)
        if self.split == "cold":
            parts["among_cold_"] = ranking_scores(truth, self.among_cold, ks=KS)
        values = {before + name: value for before, part in parts.items() for name, value in part.values.items()}
        return Scores(values, {}, {before + name: value for before, part in parts.items() for name, value in part.measures.items()})

    def intervals(self) -> dict[str, dict[str, list[float]]]:
        """Of 95 %, over users."""
        found = self.scores().intervals()
        return {"intervals": found} if found else {}

    def lines(self) -> list[dict[str, Any]]:
        """What a file of predictions holds: a user's list, and where the next item was known, it and its place."""
        found = []
        for case, plain, diverse in zip(self.cases, self.lists, self.diverse, strict=True):
            line: dict[str, Any] = {"user": self.log.users[case.user], "items": [self.log.items[item] for item in plain[:LIST]]}
            line["names"] = [self.log.names[item] for item in plain[:LIST]]
            if diverse:
                line["diverse"] = [self.log.names[item] for item in diverse]
            if case.target >= 0:
                true = int(self.log.item_N[case.target])
                line |= {"next": self.log.names[true], "rank": 1 + plain.index(true) if true in plain else None}
            found.append(line)
        return found
