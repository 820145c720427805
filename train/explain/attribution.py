"""How much each token of a text has to do with an answer, in several ways, and how far each of them can be believed."""

import heapq
import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from data.errors import UserError
from train.explain.subject import AT_ONCE, Subject

EXACT = 10
"""Tokens of a text up to which Shapley values are summed over all sets of them."""
LOBATTO = {-1.0: 1 / 10, -math.sqrt(3 / 7): 49 / 90, 0.0: 32 / 45, math.sqrt(3 / 7): 49 / 90, 1.0: 1 / 10}
"""Points and weights of Lobatto's rule on [-1, 1], exact for polynomials of degree 7."""
PARTS, HALVED = 3, 2
"""Parts of a line at first, and those halved at once: 13 and 12 new points, which fit into AT_ONCE."""
TOLERANCE = 1e-3
"""Of integrated gradients: what the errors of parts add up to, as a share of the whole."""
ROUNDING = 1e-5
"""What they cannot be expected to be below, as a share of all gains and losses on the way: numbers are float32."""


class Attributed(NamedTuple):
    """What tokens have to do with an answer, in nats (of `rollout`: shares), float64 [T], 0 for tokens that are not explained. errors_T: of
    methods that draw, the standard error of each, by which it would vary with the seed; None for others."""

    values_T: np.ndarray
    errors_T: np.ndarray | None = None


def _check_vectors(subject: Subject, method: str) -> None:
    """UserError where it would not see all that tokens do."""
    if not subject.by_vectors:
        raise UserError(
            f"--method {method} sees vectors of tokens, and n-grams of them count as well", "Choose occlusion, shap, partition or lime."
        )


def gradient_x_input(subject: Subject, **_: Any) -> Attributed:
    """The derivative by each token's vector times the vector (Shrikumar et al. 2016)."""
    _check_vectors(subject, "gradient_x_input")
    x_TW = subject.vectors(subject.params, subject.ids_T)
    return _free(subject, (subject.gradient(jnp.zeros((1, *x_TW.shape)))[1][0] * x_TW).sum(-1))


def integrated_gradients(subject: Subject, *, samples: int = 512, **_: Any) -> Attributed:
    """Derivatives along the straight line from vectors of the baseline to those of the text, times what lies between them (Sundararajan et
    al. 2017, eq. 1). They add up to the number less that of the baseline: see `completeness`.

    Where to look is chosen by that law, which holds for each part of the line too: what Lobatto's rule gives for a part is compared with
    what the number gains on it, and the worst parts are halved until the errors together are below TOLERANCE of the whole. It is the sum
    that is so exact: errors of tokens that are against each other within a part are not seen. samples: points at most, once they are 13.
    """
    _check_vectors(subject, "integrated_gradients")
    between_TW = _between(subject)
    line = _Line(lambda alpha_B: _along(subject, between_TW, alpha_B))
    parts = line.parts(np.linspace(0, 1, PARTS + 1))
    asked = 4 * PARTS + 1
    while asked + 6 * HALVED <= samples:
        change, moved = abs(sum(part.gain for part in parts)), sum(abs(part.gain) for part in parts)
        if sum(part.error for part in parts) <= max(TOLERANCE * change, ROUNDING * moved):
            break
        parts.sort(key=lambda part: part.error)
        worst = [parts.pop() for _ in range(min(HALVED, len(parts)))]
        parts += line.parts(*(np.linspace(part.first, part.last, 3) for part in worst))
        asked += 6 * len(worst)
    return _free(subject, sum(part.shares_T for part in parts))


def _along(subject: Subject, between_TW: np.ndarray, alpha_B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The number, and each token's part of its slope, float64 [B] and [B, T], at shares of the way to the text."""
    alpha = np.pad(alpha_B, (0, AT_ONCE - len(alpha_B)), mode="edge")
    value_B, derivative_BTW = subject.gradient(jnp.asarray((alpha - 1)[:, None, None] * between_TW, jnp.float32))
    slope_BT = np.einsum("BTW,TW->BT", np.asarray(derivative_BTW, np.float64), between_TW)
    return np.asarray(value_B, np.float64)[: len(alpha_B)], slope_BT[: len(alpha_B)]


class _Part(NamedTuple):
    """Of a line, from `first` to `last`: each token's share of what the number gains there."""

    first: float
    last: float
    gain: float
    shares_T: np.ndarray

    @property
    def error(self) -> float:
        return abs(float(self.shares_T.sum()) - self.gain)


class _Line:
    """What is known of the way, by the share of it: halves of a part share the ends and the middle with it."""

    def __init__(self, look: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]):
        self._look, self._known = look, dict[float, tuple[float, np.ndarray]]()

    def parts(self, *borders: np.ndarray) -> list[_Part]:
        """Those between the borders of each list, which are looked at together."""
        ends = [(first, last) for between in borders for first, last in itertools.pairwise(between.tolist())]
        places = [[_place(first, last, node) for node in LOBATTO] for first, last in ends]
        new = [place for place in dict.fromkeys(itertools.chain(*places)) if place not in self._known]
        for begin in range(0, len(new), AT_ONCE):
            asked = new[begin : begin + AT_ONCE]
            self._known.update(zip(asked, zip(*self._look(np.array(asked)), strict=True), strict=True))
        return [self._part(*end, [self._known[place] for place in inside]) for end, inside in zip(ends, places, strict=True)]

    def _part(self, first: float, last: float, found: list[tuple[float, np.ndarray]]) -> _Part:
        weights = np.array(list(LOBATTO.values()))
        shares_T = (last - first) / 2 * weights @ np.stack([slope_T for _, slope_T in found])
        return _Part(first, last, float(found[-1][0] - found[0][0]), shares_T)


def _place(first: float, last: float, node: float) -> float:
    """The ends and the middle to the bit, so that they are found again."""
    return {-1.0: first, 0.0: (first + last) / 2, 1.0: last}.get(node, first + (last - first) * (node + 1) / 2)


def _between(subject: Subject) -> np.ndarray:
    """From the baseline's vectors to the text's, 0 where nothing is explained."""
    there = np.asarray(subject.vectors(subject.params, subject.ids_T), np.float64)
    baseline = np.asarray(subject.vectors(subject.params, np.full_like(subject.ids_T, subject.baseline)), np.float64)
    return (there - baseline) * subject.free_T[:, None]


def completeness(subject: Subject, attributions: np.ndarray) -> float:
    """How far attributions are from adding up to the number less that of the baseline, as a share of that; 0 is perfect."""
    whole, none = subject.values([subject.free_T, np.zeros_like(subject.free_T)])
    return float(abs(attributions.sum() - (whole - none)) / max(abs(whole - none), 1e-9))


def occlusion(subject: Subject, **_: Any) -> Attributed:
    """What the number loses when one token is taken away (Zeiler & Fergus 2014, sec. 4.2)."""
    places = np.flatnonzero(subject.free_T)
    kept = np.ones((len(places) + 1, len(subject.ids_T)), bool)
    kept[1 + np.arange(len(places)), places] = False
    values = subject.values(kept)
    return _at(subject, values[0] - values[1:])


def rollout(subject: Subject, **_: Any) -> Attributed:
    """Attention multiplied through the layers, half of each being what is passed by (Abnar & Zuidema 2020, eq. 1), from the place that
    answers. Not signed, and the same for every answer."""
    if subject.attention is None:
        raise UserError("--method rollout is for decoders and text encoders, whose attention is known", "Choose another method.")
    _check_vectors(subject, "rollout")
    mean_LTT = subject.attention(subject.params, subject.ids_T).mean(1).astype(np.float64)
    found = np.eye(len(subject.ids_T))
    for layer_TT in mean_LTT:
        half = 0.5 * layer_TT + 0.5 * np.eye(len(found))
        found = half / half.sum(-1, keepdims=True) @ found
    return _free(subject, found[subject.reader])


def shap(subject: Subject, *, samples: int = 512, seed: int = 0, **_: Any) -> Attributed:
    """Shapley values (Lundberg & Lee 2017, eq. 8): exact for at most EXACT tokens, else by permutations and their reverses."""
    count = int(subject.free_T.sum())
    return _exact_shap(subject) if count <= EXACT else _permutation_shap(subject, samples, seed)


def _exact_shap(subject: Subject) -> Attributed:
    places = np.flatnonzero(subject.free_T)
    count = len(places)
    sets = np.array(list(itertools.product([False, True], repeat=count)))
    kept = np.zeros((len(sets), len(subject.ids_T)), bool)
    kept[:, places] = sets
    values, sizes = subject.values(kept), sets.sum(1)
    share = np.array([math.factorial(size) * math.factorial(count - size - 1) / math.factorial(count) for size in range(count)])
    found = np.zeros(count)
    for player in range(count):
        without = np.flatnonzero(~sets[:, player])
        with_it = without + (1 << (count - 1 - player))
        found[player] = (share[sizes[without]] * (values[with_it] - values[without])).sum()
    return _at(subject, found)


def _permutation_shap(subject: Subject, samples: int, seed: int) -> Attributed:
    """What each token adds to those before it in an order, the mean over orders; each with its reverse, whose errors are against its own.
    samples: texts that are read, about, but two pairs of orders at least: the standard error is that of a mean over pairs."""
    places = np.flatnonzero(subject.free_T)
    count, rng = len(places), np.random.default_rng(seed)
    orders = []
    for _ in range(max(2, samples // (2 * count))):
        order = rng.permutation(count)
        orders += [order, order[::-1]]
    kept = np.zeros((len(orders), count + 1, len(subject.ids_T)), bool)
    for number, order in enumerate(orders):
        for place, player in enumerate(order):
            kept[number, place + 1 :, places[player]] = True
    values = subject.values(kept.reshape(-1, kept.shape[-1])).reshape(len(orders), count + 1)
    added = np.zeros((len(orders), count))
    np.put_along_axis(added, np.array(orders), np.diff(values, axis=1), axis=1)
    pairs = (added[::2] + added[1::2]) / 2
    return _at(subject, pairs.mean(0), pairs.std(0, ddof=1) / math.sqrt(len(pairs)))


def partition(subject: Subject, *, samples: int = 512, **_: Any) -> Attributed:
    """Owen values over halves of the text, halves of those and so on, as SHAP's partition explainer has them: the part whose worth is the
    largest is taken apart next, in both contexts, its other half there and not. samples: texts that are read, about; what is not taken
    apart by then is shared evenly, so that the sum is exact in any case."""
    places = np.flatnonzero(subject.free_T)
    found = np.zeros(len(places))
    nothing = np.zeros(len(subject.ids_T), bool)
    none, whole = subject.values([nothing, subject.free_T])
    # (minus its worth, a number that breaks ties, first, last, context, value without, value with, weight)
    parts: list[tuple] = [(0.0, 0, 0, len(places), nothing, none, whole, 1.0)]
    numbers, asked = itertools.count(1), 2
    while parts and asked < samples:
        taken = []
        while parts and len(taken) < AT_ONCE // 2:
            _, _, first, last, kept, low, high, weight = heapq.heappop(parts)
            if last - first == 1:
                found[first] += weight * (high - low)
            else:
                taken.append((first, (first + last) // 2, last, kept, low, high, weight))
        texts = []
        for first, middle, last, kept, *_rest in taken:
            texts += [_with(kept, places[first:middle]), _with(kept, places[middle:last])]
        answers = subject.values(texts).reshape(-1, 2) if texts else np.zeros((0, 2))
        asked += len(texts)
        for (first, middle, last, kept, low, high, weight), (left, right) in zip(taken, answers, strict=True):
            for begin, end, other, without, with_it in (
                (first, middle, kept, low, left),
                (first, middle, _with(kept, places[middle:last]), right, high),
                (middle, last, kept, low, right),
                (middle, last, _with(kept, places[first:middle]), left, high),
            ):
                entry = (-weight / 2 * abs(with_it - without), next(numbers), begin, end, other, without, with_it, weight / 2)
                heapq.heappush(parts, entry)
    for _, _, first, last, _, low, high, weight in parts:
        found[first:last] += weight * (high - low) / (last - first)
    return _at(subject, found)


def _with(kept: np.ndarray, places: np.ndarray) -> np.ndarray:
    more = kept.copy()
    more[places] = True
    return more


def lime(subject: Subject, *, samples: int = 512, seed: int = 0, **_: Any) -> Attributed:
    """Coefficients of a linear model of which tokens are there, fitted near the whole text (Ribeiro et al. 2016, eq. 2): ridge regression,
    weighted by an exponential kernel on the cosine distance. Standard errors are HC3 (MacKinnon & White 1985): residuals are those
    of fits without the text in question, so they are not 0 where there are more tokens than texts."""
    places, rng = np.flatnonzero(subject.free_T), np.random.default_rng(seed)
    count = len(places)
    there = rng.random((samples, count)) < rng.uniform(0.1, 0.95, (samples, 1))
    there[0] = True
    kept = np.zeros((samples, len(subject.ids_T)), bool)
    kept[:, places] = there
    distance = 1 - np.sqrt(there.mean(1))
    weights = np.sqrt(np.exp(-(distance**2) / KERNEL**2))
    features, wanted = np.concatenate([there, np.ones((samples, 1))], 1) * weights[:, None], weights * subject.values(kept)
    penalty = 1e-3 * np.eye(count + 1)
    penalty[-1, -1] = 0.0
    solved = np.linalg.solve(features.T @ features + penalty, features.T)
    coefficients = solved @ wanted
    left_out = (wanted - features @ coefficients) / (1 - np.einsum("NK,KN->N", features, solved))
    return _at(subject, coefficients[:count], np.sqrt(np.square(solved * left_out).sum(1))[:count])


KERNEL = 0.5
"""Width of the kernel of `lime` in units of the cosine distance."""
METHODS: dict[str, Callable[..., Attributed]] = {
    one.__name__: one for one in (integrated_gradients, gradient_x_input, occlusion, rollout, shap, partition, lime)
}


STEPS = 16
"""Steps in which `faithfulness` takes all tokens away."""
SHUFFLES = 32
"""Orders of the attributions that `infidelity_random` is the mean of; they cost no text."""


def faithfulness(subject: Subject, attributions: np.ndarray, seed: int = 0) -> dict[str, float]:
    """How far attributions tell what the number rests on, each measure beside that of an explanation that knows nothing.

    `deletion` (lower is better) and `insertion` (higher is better): the mean of the number while tokens are taken away, the largest
    attribution first, and while they are put back in that order; and the same for random orders (Petsiuk et al. 2018, sec. 4.1). Of more
    than STEPS tokens several go at once.

    `infidelity` (lower is better; Yeh et al. 2019, definition 2.1): the mean square of how far the attributions of some tokens are from
    adding up to what the number loses without these, nats squared; and the same for the attributions in random order. The tokens are those
    that the random orders have taken away.
    """
    places = np.flatnonzero(subject.free_T)
    rng = np.random.default_rng(seed)
    orders = [places[np.argsort(-attributions[places], kind="stable")], *(rng.permutation(places) for _ in range(4))]
    kept = []
    for order in orders:
        gone = np.linspace(0, len(places), min(STEPS, len(places)) + 1).round().astype(int)
        deleted = np.ones((len(gone), len(subject.ids_T)), bool)
        for row, count in enumerate(gone):
            deleted[row, order[:count]] = False
        kept += [deleted, ~deleted]
    values = subject.values(np.concatenate(kept)).reshape(len(orders), 2, -1)
    (deletion, insertion), random = values[0].mean(-1), values[1:].mean((0, 2))
    gone_NP = ~np.concatenate(kept[2:])[:, places]
    lost_N = values[0, 0, 0] - values[1:].reshape(-1)
    shuffled = [rng.permutation(attributions[places]) for _ in range(SHUFFLES)]
    own, *others = (np.square(gone_NP @ shares - lost_N).mean() for shares in (attributions[places], *shuffled))
    return {
        "deletion": float(deletion),
        "deletion_random": float(random[0]),
        "insertion": float(insertion),
        "insertion_random": float(random[1]),
        "infidelity": float(own),
        "infidelity_random": float(np.mean(others)),
    }


def _free(subject: Subject, attributions) -> Attributed:
    return Attributed(np.where(subject.free_T, np.asarray(attributions, np.float64), 0.0))


def _at(subject: Subject, *of_free: np.ndarray) -> Attributed:
    """Of arrays with a number for each token that is explained."""
    whole = [np.zeros(len(subject.ids_T)) for _ in of_free]
    for found, values in zip(whole, of_free, strict=True):
        found[subject.free_T] = values
    return Attributed(*whole)
