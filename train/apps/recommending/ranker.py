"""What speaks for an item, measured in several ways, and learned weights that make one order of them.

The measures: the score of the run's model; EASE (Steck 2019); item-kNN (Deshpande and Karypis 2004); how many users had the item; how many
had it lately; how near its text is to those of the history; where there is such a run, the score of two towers. The weights are those of a
softmax over all items, a later item of each user being the right one, with all measures made without it.

Letters: U users, I items, N histories, F measures, D the width of texts.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import optimize, sparse

from train.tasks.recommending.interactions import Log

LARGEST = 12_000
"""Items that EASE knows where there are more users and items than this: those that most users had. Others have no score of EASE's."""
NEIGHBOURS = 100
"""Of each item, that are kept."""
PENALTIES = (30.0, 100.0, 300.0, 1000.0)
"""Of EASE, to choose from."""
SHRINKAGES = (10.0, 100.0)
"""Of item-kNN, to choose from: users of both items that are too few to believe in."""
LASTS = (5, 20, 10_000)
"""Items of a history that count, the last ones, to choose from."""
WINDOW = 0.05
"""Share of all events, the last ones before a moment, that say what is had lately."""
DECAY = 1e-3
"""Of the weights, per history."""
TOGETHER = 10_000_000
"""Scores of one measure that are in memory at once."""
LEAST = 20
"""Histories without which no weights are learned: the model's order is then the order."""
ENOUGH = 1000
"""Histories from which on weights are moved towards better lists: of fewer, they would learn what is chance."""
ROUNDS = 3
MOVES = (-1.0, -0.5, -0.25, -0.1, 0.1, 0.25, 0.5, 1.0)
"""Of a weight, as shares of it."""
SURE = 1.64
"""Standard errors of a gain in NDCG from which on two towers are weighed: less is chance in one case of twenty."""
GAIN = 1e-4
"""In NDCG, from which on a move is made."""
AT = 10
"""Places of a list that are looked at."""


class Known(NamedTuple):
    """Events that may be learned from. x_UI: 1 for what a user had. item_N and time_N: of each event, in order of time, of several of one
    user and item the last. So one who clicks a thousand times says it once."""

    x_UI: Any
    item_N: np.ndarray
    time_N: np.ndarray


class Asked(NamedTuple):
    """Histories whose next item is asked for. items: numbers of items, in their order. now_N: when it is asked. model_NI: the model's
    scores. towers_NI: those of two towers; None where there are none."""

    items: Sequence[np.ndarray]
    now_N: np.ndarray
    model_NI: np.ndarray
    towers_NI: np.ndarray | None = None

    def part(self, rows: slice | np.ndarray) -> "Asked":
        towers_NI = None if self.towers_NI is None else self.towers_NI[rows]
        return Asked([self.items[row] for row in np.arange(len(self.items))[rows]], self.now_N[rows], self.model_NI[rows], towers_NI)


def known_of(log: Log, events: Sequence[np.ndarray]) -> Known:
    """events: numbers, of each user."""
    chosen = np.concatenate([np.zeros(0, np.int64), *events])
    x_UI = sparse.csr_array(
        (np.ones(len(chosen), np.float32), (log.user_N[chosen], log.item_N[chosen])), shape=(len(log.users), len(log.items))
    )
    x_UI.sum_duplicates()
    x_UI.data[:] = 1
    chosen = chosen[np.argsort(log.time_N[chosen], kind="stable")]
    pair_N = log.user_N[chosen] * len(log.items) + log.item_N[chosen]
    chosen = chosen[np.sort(len(chosen) - 1 - np.unique(pair_N[::-1], return_index=True)[1])]
    return Known(x_UI, log.item_N[chosen], log.time_N[chosen])


def histories(items: Sequence[np.ndarray], count: int, last: int = LASTS[-1]):
    """Sparse float32 [N, I]: 1 for the last items of each history. count: of items in all."""
    each = [np.unique(one[-last:]) for one in items]
    ends = np.cumsum([0, *map(len, each)])
    return sparse.csr_array((np.ones(ends[-1], np.float32), np.concatenate([np.zeros(0, np.int64), *each]), ends), shape=(len(each), count))


# ---------------------------------------------------------------------------------------------------------------- measures


class Ease:
    """Steck 2019, eq. 8: the linear model that best tells what users had from what else they had."""

    def __init__(self, x_UI: Any, penalty: float):
        self._items = np.arange(x_UI.shape[1])
        if min(x_UI.shape) > LARGEST:
            self._items = np.sort(np.argsort(-x_UI.sum(0), kind="stable")[:LARGEST])
        self._x_UI, self._penalty = x_UI[:, self._items], penalty
        users, items = self._x_UI.shape
        self._by_users = users < items
        self._x_IU = self._x_UI.T.tocsr()
        if self._by_users:  # by the identity of Woodbury
            kernel_UU = (self._x_UI @ self._x_IU).toarray().astype(np.float64) + penalty * np.eye(users)
            inverse_UU = np.linalg.inv(kernel_UU).astype(np.float32)
            self._seen_UI = np.ascontiguousarray((self._x_IU @ inverse_UU).T)
            self._diagonal_I = (1 - np.asarray(self._x_UI.multiply(self._seen_UI).sum(0))) / penalty
        else:
            inverse_II = np.linalg.inv((self._x_IU @ self._x_UI).toarray().astype(np.float64) + penalty * np.eye(items))
            weights_II = -inverse_II / inverse_II.diagonal()
            np.fill_diagonal(weights_II, 0)
            self._weights_II = weights_II.astype(np.float32)

    def __call__(self, history_NI: Any) -> np.ndarray:
        found_NI = np.zeros(history_NI.shape, np.float32)
        mine_NI = history_NI[:, self._items]
        if self._by_users:
            had_NI, told_NI = mine_NI.toarray(), (mine_NI @ self._x_IU).toarray() @ self._seen_UI
            scores_NI = (told_NI - had_NI) / self._penalty / self._diagonal_I + had_NI  # without what an item says of itself
        else:
            scores_NI = mine_NI @ self._weights_II
        found_NI[:, self._items] = scores_NI
        return found_NI


class Neighbours:
    """Item-kNN: the cosine of two items' users, shrunk towards 0 where few had both (Koren 2008, sec. 2.2), of the nearest ones alone."""

    def __init__(self, x_UI: Any, shrinkage: float):
        length_I = np.sqrt(x_UI.sum(0))
        items, parts, columns_IU = x_UI.shape[1], [], x_UI.T.tocsr()
        block = max(1, TOGETHER // items)
        for begin in range(0, items, block):
            near_BI = (columns_IU[begin : begin + block] @ x_UI).toarray()
            near_BI /= length_I[begin : begin + block, None] * length_I + shrinkage + 1e-9
            near_BI[np.arange(len(near_BI)), np.arange(begin, begin + len(near_BI))] = 0
            if items > NEIGHBOURS:
                floor_B = -np.partition(-near_BI, NEIGHBOURS, axis=1)[:, NEIGHBOURS]
                near_BI[near_BI <= floor_B[:, None]] = 0
            parts.append(sparse.csr_array(near_BI))
        self._near_II = sparse.vstack(parts).T.tocsr()  # [had, next]

    def __call__(self, history_NI: Any) -> np.ndarray:
        return (history_NI @ self._near_II).toarray()


class Nearness:
    """The cosine of an item's text to the mean of those of a history."""

    def __init__(self, texts_ID: Any):
        """Unit vectors, sparse or not; zeros for items without text."""
        self._texts_ID, self._texts_DI = texts_ID, texts_ID.T.tocsr() if sparse.issparse(texts_ID) else texts_ID.T

    def __call__(self, history_NI: Any) -> np.ndarray:
        profile_ND = history_NI @ self._texts_ID
        if sparse.issparse(profile_ND):
            near_NI = (profile_ND @ self._texts_DI).toarray()
            length_N = np.sqrt(profile_ND.multiply(profile_ND).sum(1))
        else:
            near_NI, length_N = profile_ND @ self._texts_DI, np.linalg.norm(profile_ND, axis=1)
        return near_NI / np.maximum(length_N, 1e-9)[:, None]


def lately(known: Known, now_N: np.ndarray) -> np.ndarray:
    """float32 [N, I]: the logarithm of one more than the events of each item among the last ones before a moment."""
    items, size = known.x_UI.shape[1], max(1, int(WINDOW * len(known.item_N)))
    ends = np.searchsorted(known.time_N, now_N, side="right")
    counts = [np.bincount(known.item_N[max(end - size, 0) : end], minlength=items) for end in ends]
    return np.log1p(np.array(counts, np.float32).reshape(len(ends), items))


# ------------------------------------------------------------------------------------------------------------------ ranker


@dataclasses.dataclass(frozen=True)
class Learned:
    """What was learned of a run's events. settings: of the measures that have some, by their names. weights, scales: of all measures.
    validation: the NDCG@10 of each alone, and of `ranker`, on what was learned from."""

    settings: dict[str, dict[str, float]]
    weights: dict[str, float]
    scales: dict[str, float]
    validation: dict[str, float]


class Ranker:
    """Scores of items, from events that are known."""

    def __init__(self, known: Known, texts_ID: Any, learned: Learned):
        """texts_ID: see Nearness; None where there are no texts."""
        self.known, self.learned = known, learned
        self.names = tuple(learned.weights)
        self._measures = {}
        for name, measure in measures_of(known, texts_ID).items():
            settings = dict(learned.settings[name])
            last = int(settings.pop("last"))
            self._measures[name] = (measure(**settings), last)
        self._popular_I = popularity(known)

    def features(self, asked: Asked) -> np.ndarray:
        """float32 [F, N, I]: the measures, as they are."""
        return np.stack([self._feature(name, asked) for name in self.names])

    def _feature(self, name: str, asked: Asked) -> np.ndarray:
        items = self.known.x_UI.shape[1]
        if name == "model":
            return asked.model_NI
        if name == "towers":
            assert asked.towers_NI is not None
            return asked.towers_NI
        if name == "popularity":
            return np.broadcast_to(self._popular_I, (len(asked.items), items))
        if name == "recency":
            return lately(self.known, asked.now_N)
        measure, last = self._measures[name]
        return measure(histories(asked.items, items, last))

    def scores(self, features_FNI: np.ndarray) -> np.ndarray:
        """float32 [N, I]."""
        rooted_FNI = [rooted(name, feature_NI) for name, feature_NI in zip(self.names, features_FNI, strict=True)]
        return combined(rooted_FNI, np.array([self.learned.weights[name] / self.learned.scales[name] for name in self.names]))


def rooted(name: str, feature_NI: np.ndarray) -> np.ndarray:
    """As it is weighed: of measures that are near 0 for almost all items and large for a few, the square root."""
    return np.sqrt(np.maximum(feature_NI, 0)) if name in CHOICES else feature_NI


def combined(features_FNI: Sequence[np.ndarray] | np.ndarray, weights_F: np.ndarray) -> np.ndarray:
    """The weighted sum, one measure after the other, so that it is the same of one history as of many."""
    found_NI = np.zeros(features_FNI[0].shape, np.float32)
    for weight, feature_NI in zip(weights_F, features_FNI, strict=True):
        found_NI += np.float32(weight) * feature_NI
    return found_NI


def popularity(known: Known) -> np.ndarray:
    """float32 [I]: the logarithm of one more than the users that had an item."""
    return np.log1p(known.x_UI.sum(0)).astype(np.float32)


def measures_of(known: Known, texts_ID: Any) -> dict[str, Callable[..., Callable[[Any], np.ndarray]]]:
    """Measures with settings: from settings to a function of histories."""
    found: dict[str, Callable[..., Callable[[Any], np.ndarray]]] = {
        "ease": lambda penalty: Ease(known.x_UI, penalty),
        "neighbours": lambda shrinkage: Neighbours(known.x_UI, shrinkage),
    }
    return found if texts_ID is None else found | {"text": lambda: Nearness(texts_ID)}


CHOICES: dict[str, tuple[dict[str, float], ...]] = {
    "ease": tuple({"penalty": penalty} for penalty in PENALTIES),
    "neighbours": tuple({"shrinkage": shrinkage} for shrinkage in SHRINKAGES),
    "text": ({},),
}


def learn(known: Known, texts_ID: Any, asked: Asked, target_N: np.ndarray) -> Learned:
    """Settings and weights by which the targets come first. known: without the targets. asked: what came before them.

    With fewer than LEAST histories nothing is learned: the model's order is the order.
    """
    items = known.x_UI.shape[1]
    closed_NI = histories(asked.items, items).toarray() > 0
    settings, features = {}, {"model": asked.model_NI} | ({} if asked.towers_NI is None else {"towers": asked.towers_NI})
    for name, measure in measures_of(known, texts_ID).items():
        reached = -1.0
        for choice in CHOICES[name]:
            made = measure(**choice)
            for last in LASTS:
                scores_NI = made(histories(asked.items, items, last))
                found = ndcg(scores_NI, closed_NI, target_N)
                if found > reached:
                    reached, settings[name], features[name] = found, choice | {"last": float(last)}, scores_NI
    features["popularity"] = np.broadcast_to(popularity(known), asked.model_NI.shape)
    if len(known.time_N) and known.time_N[0] < known.time_N[-1]:
        features["recency"] = lately(known, asked.now_N)
    names = tuple(features)
    validation = {name: ndcg(feature_NI, closed_NI, target_N) for name, feature_NI in features.items()}
    scaled_FNI = np.stack([rooted(name, feature_NI) for name, feature_NI in features.items()])
    scales_F, weights_F = np.ones(len(names)), np.array([float(name == "model") for name in names])
    if len(target_N) >= LEAST:
        scales_F = np.array([max(float(feature_NI[~closed_NI].std()), 1e-9) for feature_NI in scaled_FNI])
        scaled_FNI /= scales_F[:, None, None].astype(np.float32)
        kept = [name != "towers" or helps(scaled_FNI, closed_NI, target_N, number) for number, name in enumerate(names)]
        weights_F[:] = 0
        weights_F[kept] = softmax_weights(scaled_FNI[kept], closed_NI, target_N)
        if len(target_N) >= ENOUGH:
            weights_F[kept] = ascended(weights_F[kept], scaled_FNI[kept], closed_NI, target_N)
    validation["ranker"] = ndcg(combined(scaled_FNI, weights_F), closed_NI, target_N)
    weights, scales = (dict(zip(names, one.tolist(), strict=True)) for one in (weights_F, scales_F))
    return Learned(settings, weights, scales, validation)


def softmax_weights(features_FNI: np.ndarray, closed_NI: np.ndarray, target_N: np.ndarray) -> np.ndarray:
    """float64 [F]: the weights w that minimise the mean of -log softmax(w · features)[target] + DECAY / 2 · |w|², over the items that are
    not closed."""
    rows = np.arange(len(target_N))
    right_F = features_FNI[:, rows, target_N].mean(1, dtype=np.float64)
    flat_FM = features_FNI.reshape(len(features_FNI), -1)

    def loss(weights_F: np.ndarray) -> tuple[float, np.ndarray]:
        logits_NI = np.where(closed_NI, -np.inf, (weights_F.astype(np.float32) @ flat_FM).reshape(closed_NI.shape))
        logits_NI -= logits_NI.max(1, keepdims=True)
        exp_NI = np.exp(logits_NI)
        total_N = exp_NI.sum(1, dtype=np.float64)
        nll = float((np.log(total_N) - logits_NI[rows, target_N]).mean()) + DECAY / 2 * float(weights_F @ weights_F)
        expected_F = flat_FM @ (exp_NI / total_N[:, None]).astype(np.float32).reshape(-1) / len(target_N)
        return nll, expected_F - right_F + DECAY * weights_F

    return optimize.minimize(loss, np.zeros(len(features_FNI)), jac=True, method="L-BFGS-B").x


def helps(features_FNI: np.ndarray, closed_NI: np.ndarray, target_N: np.ndarray, number: int) -> bool:
    """Whether a measure surely makes better lists for histories that its weight was not learned from: NDCG@10 of each half by the weights
    of the other half, with the measure and without, differs by SURE standard errors."""
    gained_N = np.zeros(len(target_N))
    for half in range(2):
        learned, judged = np.arange(half, len(target_N), 2), np.arange(1 - half, len(target_N), 2)
        for some_FNI, sign in ((features_FNI, 1), (np.delete(features_FNI, number, 0), -1)):
            weights_F = softmax_weights(some_FNI[:, learned], closed_NI[learned], target_N[learned])
            gained_N[judged] += sign * gains(combined(some_FNI[:, judged], weights_F), closed_NI[judged], target_N[judged])
    return bool(gained_N.mean() > SURE * gained_N.std() / np.sqrt(len(gained_N)))


def ascended(weights_F: np.ndarray, features_FNI: np.ndarray, closed_NI: np.ndarray, target_N: np.ndarray) -> np.ndarray:
    """Weights of a larger NDCG@10 than those that they begin from, one changed at a time (Metzler and Croft 2007, sec. 4.2): what is most
    likely is not quite what makes the best lists."""
    weights_F = weights_F.copy()
    scores_NI = combined(features_FNI, weights_F)
    reached = ndcg(scores_NI, closed_NI, target_N)
    for _ in range(ROUNDS):
        before = reached
        for number, feature_NI in enumerate(features_FNI):
            for part in MOVES:
                move = part * max(abs(weights_F[number]), 0.1)
                moved_NI = scores_NI + np.float32(move) * feature_NI
                found = ndcg(moved_NI, closed_NI, target_N)
                if found > reached + GAIN:
                    scores_NI, reached = moved_NI, found
                    weights_F[number] += move
        if reached <= before:
            break
    return weights_F


def ndcg(scores_NI: np.ndarray, closed_NI: np.ndarray, target_N: np.ndarray) -> float:
    """The mean of `gains`; 0 without lists."""
    return float(gains(scores_NI, closed_NI, target_N).mean()) if len(target_N) else 0.0


def gains(scores_NI: np.ndarray, closed_NI: np.ndarray, target_N: np.ndarray) -> np.ndarray:
    """float64 [N]: NDCG@10 over the items that are not closed, one of each list being right. Among equal scores it has the middle place."""
    right_N = scores_NI[np.arange(len(target_N)), target_N][:, None]
    before_N = ((scores_NI > right_N) & ~closed_NI).sum(1)
    place_N = 1 + before_N + (((scores_NI == right_N) & ~closed_NI).sum(1) - 1) / 2
    return np.where(place_N <= AT, 1 / np.log2(1 + place_N), 0)


def lots(asked: Asked, items: int) -> Iterator[slice]:
    """Some histories at a time, as many as there is room for."""
    size = max(1, TOGETHER // max(items, 1))
    return (slice(begin, begin + size) for begin in range(0, len(asked.items), size))
