"""A recommender at work: for a user, or for what somebody had, the items that come next, with reasons."""

import dataclasses
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from scipy import sparse

from data.errors import UserError
from data.records.record import Record, is_number
from data.rows.order import few_of
from train.apps.answering import ID, Answering, in_place, number_in
from train.apps.recommending.lists import diverse, gini, list_measures, novelty, variety
from train.apps.recommending.ranker import TOGETHER, Asked, Known, Learned, Ranker, known_of, learn, lots
from train.kinds import Application, Column, Section
from train.tasks.metrics.ranking import best, unseen
from train.tasks.recommending.interactions import Case, Log, text_vectors
from train.tasks.recommending.item_words import word_vectors
from train.tasks.words import words

TOP, MOST = 10, 1000
"""Items of a list where a row asks for no number, and at most."""
CANDIDATES = 50
"""The best items, of which diverse lists are made; for longer lists, five times as many as are asked for."""
REASONS = 2
"""Items of the history that are named for each recommended one."""
WORDS = 5
"""Words that two texts share, named at most, the rarest first."""
JUDGED = 3000
"""Users whose lists are measured for the page."""
DIVERSITIES = (0.1, 0.3, 0.5)
"""That are measured beside none."""


class Request(NamedTuple):
    """items: numbers of what was had, in its order. kinds: of those events; of what a row gives itself, the first. closed: numbers of what
    may not come. wanted: the item that did come, where the row says so; -1: one that nobody knows."""

    user: int | None
    items: np.ndarray
    kinds: np.ndarray
    closed: np.ndarray
    top: int
    diversity: float
    wanted: int | None


class Scoring(Answering):
    """The scores that a run's model gives all items after histories."""

    def scores(self, items: Sequence[np.ndarray], users: Sequence[int | None], kinds: Sequence[np.ndarray] | None = None) -> np.ndarray:
        """float32 [N, I]. items: numbers, at least one in each; kinds: of their events, by default the first kind. A user who is None has
        the features of the average user."""
        length, unknown = self.dataset.length, len(self.dataset.log.users)
        params = self._params
        if "user_facts" in params:
            facts_UF = params["user_facts"]
            params = params | {"user_facts": jnp.concatenate([facts_UF, jnp.zeros_like(facts_UF[:1])])}
        else:
            unknown = 0

        def batch(first: int, count: int):
            made = self.dataset.empty(count)
            for row, number in enumerate(range(first, min(first + count, len(items)))):
                mine = items[number][-length:]
                made.tokens[row, : len(mine)], made.segments[row, : len(mine)] = mine, 1
                made.positions[row, : len(mine)] = np.arange(len(mine))
                if kinds is not None:
                    made.kinds[row, : len(mine)] = kinds[number][-length:]
                user = users[number]
                made.users[row] = unknown if user is None else user
            return made

        found = [np.zeros((0, len(self.dataset.log.items)), np.float32)]
        self._evaluator.outputs(params, batch, len(items), lambda outputs: found.append(np.asarray(outputs["scores"], np.float32)))
        return np.concatenate(found)[: len(items)]

    def after(self, cases: Sequence[Case]) -> np.ndarray:
        """The same of cases of the run's events."""
        log = self.dataset.log
        items = [log.item_N[case.history] for case in cases]
        return self.scores(items, [case.user for case in cases], [log.kind_N[case.history] for case in cases])


class Recommender(Application):
    """Lists of items, best first.

    A row has `user`, whose recorded history counts, or `history`, a list of items, or both: what came after what is recorded. `top`: how
    many items, 10 by default; `exclude`: items that may not come, beside those of the history; `diversity`: 0 to 1, see `diverse`. A row
    that says what came `next` is counted in the summary.

    Somebody of whose history nobody had anything gets an answer by the texts of those items, if they have some, and else what most users
    had: such an answer says `cold`, and `by` text or popularity.
    """

    text = "user"

    def __init__(self, scoring: Scoring, towers: Scoring | None = None):
        """towers: of a run of two towers; UserError where it did not learn from the same events."""
        self.scoring, self.towers, self._log = scoring, towers, scoring.dataset.log
        self.reads = scoring.reads if towers is None else [*scoring.reads, *towers.reads]
        log, o = self._log, scoring.dataset.options
        scoring.run.corpora()  # the events must be those that the run knows
        if towers is not None:
            towers.run.corpora()
            _check_same(log, towers)
        self._users = {name: number for number, name in enumerate(log.users)}
        self._items = {name: number for number, name in enumerate(log.items)}
        self._texts_ID = text_vectors(o) if o.encoder else word_vectors(log.texts) if any(log.texts) else None
        self._words = [frozenset(words(text)) for text in log.texts]
        self._text_count = Counter(word for text in self._words for word in text)
        texts = [o.items, [*o.text], o.encoder]
        learned = scoring.learned(lambda: dataclasses.asdict(self._learn()), of=[texts, None if towers is None else towers.reads])
        self._learned = Learned(**learned)
        self._history_U = [case.history for case in log.cases["next"]]
        self.ranker = Ranker(known_of(log, self._history_U), self._texts_ID, self._learned)
        self._had_UI = self.ranker.known.x_UI.tocsc()
        self._had_I = np.asarray(self._had_UI.sum(0))
        self._vectors_ID = self._vectors(self.ranker.known)
        self._novelty_I = novelty(self._had_I, len(log.users))
        self._counts: Counter[str] = Counter()
        self._shown: Counter[int] = Counter()
        self._sums = {"ndcg": 0.0, "diversity": 0.0, "novelty": 0.0}

    def _learn(self) -> Learned:
        """From the last items but one of some users, which the run's training did not see. They are left out of what all measures are made
        of; of other users all counts but the last item, so that the measures know as much as they do at work."""
        log = self._log
        cases = [case for case in log.cases["validation"] if len(case.history)]
        chosen = [cases[number] for number in few_of(np.arange(len(cases)), max(1, TOGETHER // len(log.items)), 0)]
        held = {case.user: case.history for case in chosen}
        known = known_of(log, [held.get(user, events) for user, events in enumerate(self._before_tests())])
        target_N = np.array([log.item_N[case.target] for case in chosen], np.int64)
        return learn(known, self._texts_ID, self.asked(chosen), target_N)

    def asked(self, cases: Sequence[Case]) -> Asked:
        """Cases of the run's events. Asked for when the last event was there."""
        log = self._log
        now_N = np.array([log.time_N[case.history[-1]] for case in cases])
        towers_NI = None if self.towers is None else self.towers.after(cases)
        return Asked([log.item_N[case.history] for case in cases], now_N, self.scoring.after(cases), towers_NI)

    def asked_now(self, requests: Sequence[Request]) -> Asked:
        """Any histories, asked for after all events."""
        items, users, kinds = [one.items for one in requests], [one.user for one in requests], [one.kinds for one in requests]
        towers_NI = None if self.towers is None else self.towers.scores(items, users, kinds)
        return Asked(items, np.full(len(items), np.inf), self.scoring.scores(items, users, kinds), towers_NI)

    def _before_tests(self) -> list[np.ndarray]:
        """Events of each user before the last new item."""
        before = {case.user: case.history for case in self._log.cases["test"]}
        return [before.get(user, events) for user, events in enumerate(self._log.train_U)]

    def _vectors(self, known: Known) -> Any:
        """[I, D]: what says how alike items are: their texts, else who had them."""
        return self._texts_ID if self._texts_ID is not None else known.x_UI.T.tocsr()

    def number(self, name: Any) -> int | None:
        """Of an item, by its name in the events; None for one that nobody knows."""
        return self._items.get(str(name))

    # Rows

    @property
    def columns(self) -> dict[str, Column]:
        return {
            "user": Column("A user of the events, whose history counts."),
            "history": Column("Items that were had, instead, or after what is recorded.", "list"),
            "top": Column(f"How many items are recommended, 1 to {MOST}; {TOP} by default.", "number"),
            "exclude": Column("Items that may not come, beside those of the history.", "list"),
            "diversity": Column("How much the list avoids items that are alike, 0 to 1; 0 by default.", "number"),
            "next": Column("The item that did come, if it is known: the summary counts how often it is in the list."),
        } | ID

    @property
    def example(self) -> dict[str, Any]:
        """Of the items that most users had."""
        return {"history": [self._log.items[item] for item in np.argsort(-self._had_I, kind="stable")[:2]], "top": 5}

    def answers(self, rows: Sequence[Record]) -> list[dict[str, Any]]:
        return in_place(rows, self._request, self._lines)

    def _lines(self, requests: list[Request]) -> list[dict[str, Any]]:
        warm = [request for request in requests if self._is_warm(request)]
        if not warm:
            return [self._answer(request, None) for request in requests]
        asked = self.asked_now(warm)
        each = (asked.part(slice(row, row + 1)) for row in range(len(warm)))
        return [self._answer(request, next(each) if self._is_warm(request) else None) for request in requests]

    def _request(self, row: Record) -> Request:
        if row.get("user") in (None, "") and row.get("history") in (None, ""):
            raise UserError(f"{row.where}: has neither user nor history", 'Give {"user": NAME} or {"history": [ITEM, ...]}.')
        user = self._users.get(_name(row["user"], row, "user")) if row.get("user") not in (None, "") else None
        history, exclude = _names(row, "history"), _names(row, "exclude")
        top, diversity = int(number_in(row, "top", TOP, 1, MOST, whole=True)), number_in(row, "diversity", 0, 0, 1)
        wanted = self._items.get(_name(row["next"], row, "next"), -1) if row.get("next") not in (None, "") else None
        events = self._history_U[user] if user is not None else np.zeros(0, np.int64)
        given, closed = (np.array([self._items[name] for name in names if name in self._items], np.int64) for names in (history, exclude))
        items = np.concatenate([self._log.item_N[events], given])
        kinds = np.concatenate([self._log.kind_N[events], np.zeros_like(given)])
        return Request(user, items, kinds, np.union1d(items, closed), top, diversity, wanted)

    def _is_warm(self, request: Request) -> bool:
        return bool(self._had_I[request.items].any())

    def _answer(self, request: Request, asked: Asked | None) -> dict[str, Any]:
        """asked: of this request alone; None where nobody had anything of its history."""
        if asked is not None:
            by = "ranker"
            (scores_I,) = self.ranker.scores(self.ranker.features(asked))
        else:
            by, scores_I = self._cold(request)
        chosen = self._chosen(unseen(scores_I, request.closed), request.top, request.diversity, self._vectors_ID)
        self._count(request, chosen, by)
        lines = [
            {"item": self._log.items[item], "score": round(float(scores_I[item]), 4), "title": self._log.names[item], "reasons": reasons}
            for item, reasons in zip(chosen, self._reasons(request.items, chosen), strict=True)
        ]
        return {"items": lines, "cold": asked is None, "by": by}

    def _cold(self, request: Request) -> tuple[str, np.ndarray]:
        """(what it goes by, scores [I])."""
        if self._texts_ID is not None and len(request.items):
            profile = self._texts_ID[np.unique(request.items)].sum(0)
            near_I = np.asarray(self._texts_ID @ profile, np.float32)
            if near_I.any():
                return "text", near_I / np.linalg.norm(profile)
        return "popularity", self._had_I.astype(np.float32)

    @staticmethod
    def _chosen(scores_I: np.ndarray, top: int, diversity: float, vectors_ID: Any) -> list[int]:
        """The best items; with diversity, of more candidates those that are less alike. scores_I: -inf for what may not come."""
        if not diversity:
            return best(scores_I, top)
        candidates = best(scores_I, max(CANDIDATES, 5 * top))
        if not candidates:
            return []
        return [candidates[place] for place in diverse(scores_I[candidates], _dense(vectors_ID, candidates), top, diversity)]

    def _reasons(self, history: np.ndarray, chosen: list[int]) -> list[list[dict[str, Any]]]:
        """Of each recommended item the items of a history that are nearest: by the cosine of who had them, or where it is larger, of their
        texts."""
        had = np.unique(history)
        if not len(had) or not chosen:
            return [[] for _ in chosen]
        both_KH = (self._had_UI[:, chosen].T @ self._had_UI[:, had]).toarray()
        near_KH = both_KH / np.sqrt(np.maximum(np.outer(self._had_I[chosen], self._had_I[had]), 1))
        if self._texts_ID is not None:
            text_KH = self._texts_ID[chosen] @ self._texts_ID[had].T
            near_KH = np.maximum(near_KH, text_KH.toarray() if sparse.issparse(text_KH) else text_KH)
        return [
            [
                {
                    "because": self._log.items[had[place]],
                    "title": self._log.names[had[place]],
                    "nearness": round(float(near_H[place]), 4),
                    "words": self._shared(item, int(had[place])),
                }
                for place in np.argsort(-near_H, kind="stable")[:REASONS]
                if near_H[place] > 0
            ]
            for item, near_H in zip(chosen, near_KH, strict=True)
        ]

    def _shared(self, one: int, other: int) -> list[str]:
        """Words of both texts, the rarest first, without those that more than a tenth of all texts have."""
        common = [word for word in self._words[one] & self._words[other] if self._text_count[word] <= max(5, len(self._words) / 10)]
        return sorted(common, key=lambda word: (self._text_count[word], word))[:WORDS]

    # All rows

    def _count(self, request: Request, chosen: list[int], by: str) -> None:
        self._counts["answered"] += 1
        self._counts[by] += 1
        self._shown.update(chosen)
        self._counts["shown"] += len(chosen)
        self._sums["novelty"] += float(self._novelty_I[chosen].sum())
        if len(chosen) > 1:
            self._counts["varied"] += 1
            self._sums["diversity"] += variety(_dense(self._vectors_ID, chosen))
        if request.wanted is not None:
            self._counts["wanted"] += 1
            if request.wanted in chosen:
                self._counts["hit"] += 1
                self._sums["ndcg"] += float(1 / np.log2(2 + chosen.index(request.wanted)))

    def state(self) -> Any:
        return {"counts": dict(self._counts), "shown": {str(item): times for item, times in self._shown.items()}, "sums": dict(self._sums)}

    def restore(self, state: Any) -> None:
        self._counts, self._sums = Counter(state["counts"]), dict(state["sums"])
        self._shown = Counter({int(item): times for item, times in state["shown"].items()})

    def summary(self) -> dict[str, Any]:
        """Rows that were answered, and by what; coverage: the share of all items that were shown; gini, diversity and novelty (bits) of the
        lists, as of `list_measures`; where rows say what came next, hit and ndcg: of the lists as long as they are."""
        c, items = self._counts, len(self._log.items)
        found: dict[str, Any] = {name: c[name] for name in ("ranker", "text", "popularity")}
        if c["shown"]:
            found |= {"coverage": len(self._shown) / items, "novelty": self._sums["novelty"] / c["shown"]}
            found["gini"] = gini(np.array([self._shown[item] for item in range(items)]))
        found |= {"diversity": self._sums["diversity"] / c["varied"]} if c["varied"] else {}
        return found | ({"hit": c["hit"] / c["wanted"], "ndcg": self._sums["ndcg"] / c["wanted"]} if c["wanted"] else {})

    def tested(self, most: int = JUDGED) -> dict[str, dict[str, float]]:
        """Measures of lists for the last new item of each user, by name: of each measure alone, of `ranker`, and of its diverse lists. All
        is made of the events before, and every item is ranked. most: of users. {} where no user has such an item."""
        log = self._log
        cases = log.cases["test"]
        known = known_of(log, self._before_tests())
        chosen = [cases[number] for number in few_of(np.arange(len(cases)), most, 0)]
        return self.measured(known, self.asked(chosen), [int(log.item_N[case.target]) for case in chosen]) if chosen else {}

    def measured(self, known: Known, asked: Asked, targets: Sequence[int]) -> dict[str, dict[str, float]]:
        """The same of any histories and their next items."""
        ranker, vectors_ID = Ranker(known, self._texts_ID, self._learned), self._vectors(known)
        names = (*ranker.names, "ranker", *(f"diversity {diversity}" for diversity in DIVERSITIES))
        lists: dict[str, list[list[int]]] = {name: [] for name in names}
        for some in lots(asked, len(self._log.items)):
            part = asked.part(some)
            features_FNI = ranker.features(part)
            for row, (seen, scores_I) in enumerate(zip(part.items, ranker.scores(features_FNI), strict=True)):
                for name, feature_NI in zip(ranker.names, features_FNI, strict=True):
                    lists[name].append(best(unseen(feature_NI[row], seen), TOP))
                for name, diversity in zip(names[len(ranker.names) :], (0.0, *DIVERSITIES), strict=True):
                    lists[name].append(self._chosen(unseen(scores_I, seen), TOP, diversity, vectors_ID))
        had_I, users = np.asarray(known.x_UI.sum(0)), len(self._log.users)
        return {
            name: list_measures(found, targets, had_I, users, [variety(_dense(vectors_ID, one)) for one in found])
            for name, found in lists.items()
        }

    def sections(self) -> list[Section]:
        tested = self.tested()
        columns = ("order", *next(iter(tested.values()), {}))
        rows = [[name, *(f"{value:.4f}" for value in measures.values())] for name, measures in tested.items()]
        weights = [[name, f"{weight:.3f}"] for name, weight in self._learned.weights.items()]
        found = self.summary_rows()
        return [
            Section("Recommender: what was answered", {}, ("of the rows", ""), found),
            Section("Recommender: the last item of each user, all items ranked", {}, columns, rows),
            Section("Recommender: what counts, in standard deviations", {}, ("measure", "weight"), weights),
        ]


def _check_same(log: Log, towers: Scoring) -> None:
    """UserError for towers that know other items, or learned from events that others are asked for."""
    theirs = towers.dataset.log
    alike = log.items == theirs.items and log.users == theirs.users
    if not alike or not all(
        np.array_equal(log.item_N[mine], theirs.item_N[other]) for mine, other in zip(log.train_U, theirs.train_U, strict=True)
    ):
        raise UserError(
            f"data.towers: {towers.run.path} did not learn from the same events and items", "Train it with the same --data options."
        )


def _dense(vectors_ID: Any, items: Sequence[int]) -> np.ndarray:
    """[K, D'] of some items; of sparse vectors, without the places where none of these has anything."""
    found = vectors_ID[list(items)]
    return found[:, np.unique(found.indices)].toarray() if sparse.issparse(found) else found


def _name(value: Any, row: Record, what: str) -> str:
    """UserError for what is no name of a user or item."""
    if not (isinstance(value, str) or is_number(value)) or not str(value).strip():
        raise UserError(f"{row.where}: {what} {str(value)[:40]!r} is no name", "Give names as they are in the events.")
    return str(value)


def _names(row: Record, what: str) -> list[str]:
    value = row.get(what)
    if value in (None, ""):  # a cell of a table that is empty
        return []
    if not isinstance(value, list):
        raise UserError(f"{row.where}: {what} is no list", "Give a list of items.")
    return [_name(one, row, what) for one in value]
