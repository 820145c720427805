"""An n-gram language model: the baseline that a neural one must beat on the same tokens."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class _Order:
    """Counts of the n-grams of one length n. An n-gram is known by its place in `keys`; its context is an (n-1)-gram, known likewise.

    keys: int64, sorted, context * (vocab + 1) + token. counts: of each key. totals, followers: of each context, the sum of its counts and
    how many different tokens follow it.
    """

    keys: np.ndarray
    counts: np.ndarray
    totals: np.ndarray
    followers: np.ndarray
    discount: float


class NGram:
    """Interpolated Kneser-Ney smoothing with one discount per order (Kneser & Ney 1995; Chen & Goodman 1999).

    p_n(w | h) = (max(c(hw) - D, 0) + D * followers(h) * p_{n-1}(w | h')) / c(h), with h' = h without its first token; p_0 is uniform over
    the vocabulary. Below the highest order, c counts the different tokens seen before hw instead of its occurrences. Contexts do not reach
    over the start of a document, which is a context of its own.
    """

    def __init__(self, vocab: int, orders: list[_Order]):
        self.vocab, self._orders = vocab, orders

    @classmethod
    def fit(cls, documents: Iterable[np.ndarray], vocab: int, order: int = 5) -> "NGram":
        """Count. documents: arrays of ids below `vocab`, each with its end token if the end is to be predicted. order: longest n-gram."""
        tokens, real = _stream(documents, vocab, order)
        grams = np.zeros_like(tokens)  # of length n - 1, ending at each place: for n = 1 there is one, the empty one
        contexts, found = 1, []
        for _ in range(order):
            keys, places, grams = np.unique(_before(grams) * (vocab + 1) + tokens, return_index=True, return_inverse=True)
            found.append((keys, places, grams, contexts))
            contexts = len(keys)
        orders = []
        for n, (keys, _, grams, contexts) in enumerate(found):
            if n == order - 1:
                counts = np.bincount(grams[real], minlength=len(keys))
            else:
                longer = found[n + 1][1]  # one place of each longer n-gram: those that end alike differ in their first token
                counts = np.bincount(grams[longer[real[longer]]], minlength=len(keys))
            seen = counts > 0
            totals = np.bincount(keys // (vocab + 1), weights=counts, minlength=contexts)
            followers = np.bincount(keys[seen] // (vocab + 1), minlength=contexts)
            once, twice = (int(np.count_nonzero(counts == k)) for k in (1, 2))
            discount = float(np.clip(once / max(once + 2 * twice, 1), 0.1, 0.95))  # the clip gives unseen tokens a share on tiny data, too
            orders.append(_Order(keys, counts, totals, followers, discount))
        return cls(vocab, orders)

    def nats_per_token(self, documents: Iterable[np.ndarray]) -> float:
        """Mean -log p of the tokens of `documents`."""
        tokens, real = _stream(documents, self.vocab, len(self._orders))
        p = np.full(len(tokens), 1 / self.vocab)
        grams = np.zeros_like(tokens)
        for order in self._orders:
            contexts = _before(grams)
            grams = self._find(order, contexts, tokens)
            p = self._mixed(order, contexts, grams, p)
        return float(-np.log(p[real]).mean())

    def log_probs(self, rows_NT: np.ndarray) -> np.ndarray:
        """log p of each id of rows, given those before it in its row, float64 [N, T]. Rows begin where documents begin, or anywhere: then
        the first order - 1 ids are there to be seen, and what is found for them means nothing. Ids: vocab stands for what is before a
        document, -1 for what is behind a row's end, whose log p is 0."""
        found = np.zeros(rows_NT.shape)
        suffixes = [np.zeros(len(rows_NT), np.int64)] + [np.full(len(rows_NT), -1)] * (len(self._orders) - 1)
        for place, tokens in enumerate(rows_NT.T):
            p = np.full(len(rows_NT), 1 / self.vocab)
            longer = []
            for order, contexts in zip(self._orders, suffixes, strict=True):
                grams = self._find(order, contexts, tokens)
                p = self._mixed(order, contexts, grams, p)
                longer.append(grams)
            found[:, place] = np.where(tokens >= 0, np.log(p), 0.0)
            suffixes = [suffixes[0], *longer[:-1]]
        return found

    def arrays(self) -> dict[str, np.ndarray]:
        """All that it knows, to be kept in a file; `of_arrays` makes the same model of it."""
        found: dict[str, np.ndarray] = {"vocab": np.array(self.vocab)}
        for number, order in enumerate(self._orders):
            found |= {f"{name}_{number}": np.asarray(value) for name, value in vars(order).items()}
        return found

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, np.ndarray]) -> "NGram":
        names = [field.name for field in dataclasses.fields(_Order)]
        count = sum(name.startswith("keys_") for name in arrays)
        each: list[dict[str, Any]] = [{name: arrays[f"{name}_{number}"] for name in names} for number in range(count)]
        orders = [_Order(**own | {"discount": float(own["discount"])}) for own in each]
        return cls(int(arrays["vocab"]), orders)

    def probabilities(self, prefix) -> np.ndarray:
        """p(w | a document that starts with the ids `prefix`) for all w, float64 [vocab]."""
        return self._distribution(self._read(prefix))

    def sample(
        self, rng: np.random.Generator, prefix, max_tokens: int, stop_id: int | None = None, *, temperature: float = 1.0
    ) -> np.ndarray:
        """Continue a document that starts with the ids `prefix`. Returns at most `max_tokens` new ids, ending before `stop_id`."""
        suffixes = self._read(prefix)
        new: list[int] = []
        while len(new) < max_tokens:
            p = self._distribution(suffixes)
            if temperature != 1.0:
                p = (p / p.max()) ** (1 / temperature)
            token = int(rng.choice(self.vocab, p=p / p.sum()))
            if token == stop_id:
                break
            new.append(token)
            suffixes = self._append(suffixes, token)
        return np.asarray(new, np.int64)

    def _read(self, prefix) -> list[int]:
        """The n-grams that a document ends in after `prefix`, for n = 0, 1, ..., order - 1; -1 for one never seen."""
        suffixes = [0] * len(self._orders)
        for token in [self.vocab] * (len(self._orders) - 1) + list(prefix):
            suffixes = self._append(suffixes, token)
        return suffixes

    def _distribution(self, suffixes: list[int]) -> np.ndarray:
        p = np.full(self.vocab, 1 / self.vocab)
        for order, context in zip(self._orders, suffixes, strict=True):
            if context < 0 or not order.totals[context]:
                break
            first, last = np.searchsorted(order.keys, [context * (self.vocab + 1), context * (self.vocab + 1) + self.vocab])
            p *= order.discount * order.followers[context] / order.totals[context]
            tokens = order.keys[first:last] % (self.vocab + 1)
            p[tokens] += np.maximum(order.counts[first:last] - order.discount, 0) / order.totals[context]
        return p

    def _append(self, suffixes: list[int], token: int) -> list[int]:
        longer = zip(self._orders[:-1], suffixes, strict=False)
        return [0] + [int(self._find(order, np.asarray([context]), np.asarray([token]))[0]) for order, context in longer]

    @staticmethod
    def _mixed(order: _Order, contexts: np.ndarray, grams: np.ndarray, p: np.ndarray) -> np.ndarray:
        """p_n of tokens, from their p_{n-1}: where the context was never seen, the shorter one has the word."""
        total = np.where(contexts >= 0, order.totals[contexts], 0)
        known = np.flatnonzero(total)
        count = np.where(grams[known] >= 0, order.counts[grams[known]], 0)
        rest = order.discount * order.followers[contexts[known]] * p[known]
        found = p.copy()
        found[known] = (np.maximum(count - order.discount, 0) + rest) / total[known]
        return found

    def _find(self, order: _Order, contexts: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        """The n-grams (context, token), -1 where never seen; so are all with an unseen context."""
        keys = contexts * (self.vocab + 1) + tokens
        places = np.minimum(np.searchsorted(order.keys, keys), len(order.keys) - 1)
        return np.where((contexts >= 0) & (order.keys[places] == keys), places, -1)


def _stream(documents: Iterable[np.ndarray], vocab: int, order: int) -> tuple[np.ndarray, np.ndarray]:
    """All documents one after the other, each after order - 1 pads (id `vocab`, at least one); and where the real tokens are."""
    pads = np.full(max(order - 1, 1), vocab, np.int64)
    pieces = [piece for document in documents for piece in (pads, np.asarray(document, np.int64))]
    tokens = np.concatenate([*pieces, pads[:0]])
    real = tokens < vocab
    if not real.any():
        raise ValueError("an n-gram model needs at least one token")
    return tokens, real


def _before(grams: np.ndarray) -> np.ndarray:
    """The n-gram that ends one place earlier. The first place has none, and is a pad."""
    return np.concatenate([grams[:1], grams[:-1]])
