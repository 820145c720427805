"""Bringing updates of clients together, some of which may be anything.

Rules read a tree whose leaves lead with an axis of clients, and weights [B], 0 for a client that sent nothing; they return a tree without
that axis. Only `mean` weighs clients: where a client says its own weight, a rule that believes it could be bought. The others count a
client as absent whose update is not finite or far longer than most are; the mean has no such defence.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from train.step.federated.options import LONGEST

FAR = 1e4
"""Times the median length of updates: longer ones are no client's honest work, and would take all precision from the others' distances."""


def mean(updates, weights_B):
    """sum(weight * update) / sum(weight); zero where there is none. One update of any length moves it as far as it likes."""
    total = jnp.maximum(weights_B.sum(), 1e-8)
    return jax.tree.map(lambda x: jnp.tensordot(weights_B, x, 1) / total, _without(updates, weights_B > 0))


def _without(updates, here_B):
    """Updates whose absent clients have zeros: whatever those sent, 0 times it is not 0 where it is not finite."""
    return jax.tree.map(lambda x: jnp.where(_along(here_B, x), x, 0), updates)


def _along(values_B, x):
    """Values of clients in a shape that broadcasts with a leaf."""
    return values_B.reshape(-1, *(1,) * (x.ndim - 1))


def lengths(updates):
    """Global norms of clients, float32 [B], without overflow on the way; not finite where an update is not."""
    leaves = jax.tree.leaves(updates)
    largest_B = jnp.stack([jnp.abs(x).reshape(len(x), -1).max(1, initial=0) for x in leaves]).max(0).astype(jnp.float32)
    scale_B = jnp.where(largest_B > 0, largest_B, 1)
    return scale_B * jnp.sqrt(sum(jnp.square(x / _along(scale_B, x)).reshape(len(x), -1).sum(1) for x in leaves))


def present(updates, weights_B):
    """(updates, bool [B]): whose update may be honest, by its length; the others' have zeros. As long as most clients are honest, the
    median length is at most one of theirs."""
    lengths_B = lengths(updates)
    here_B = (weights_B > 0) & (lengths_B <= LONGEST)  # False too for what is no number
    ranked_B = jnp.sort(jnp.where(here_B, lengths_B, jnp.inf))
    middle = ranked_B[jnp.maximum(here_B.sum() - 1, 0) // 2]
    here_B &= (lengths_B <= FAR * middle) | (middle == 0)
    return _without(updates, here_B), here_B


MOST_EXCHANGED = 32
"""Clients up to which numbers are sorted by exchanges."""


def _ranked(x, here_B):
    """Numbers in ascending order along the clients, those of absent ones and what is no number last; how many are there.

    For few clients by a network of exchanges, each of which is a minimum and a maximum of whole updates: on a CPU XLA's sort, which looks
    at one number of each client at a time, takes eleven times as long for ten of them.
    """
    x = jnp.where(_along(here_B, x) & ~jnp.isnan(x), x, jnp.inf)
    if len(x) > MOST_EXCHANGED:
        return jnp.sort(x, axis=0), here_B.sum()
    clients = list(x)
    for low, high in exchanges(len(clients)):
        clients[low], clients[high] = jnp.minimum(clients[low], clients[high]), jnp.maximum(clients[low], clients[high])
    return jnp.stack(clients), here_B.sum()


def exchanges(count: int) -> list[tuple[int, int]]:
    """Pairs of places that put any `count` numbers in order, if each pair is put in order, one after another (Batcher 1968, merge exchange;
    Knuth, vol. 3, algorithm 5.2.2M)."""
    found: list[tuple[int, int]] = []
    top = 1 << max(count - 1, 0).bit_length() >> 1
    half = top
    while half:
        step, part, distance = top, 0, half
        while True:
            found += [(place, place + distance) for place in range(count - distance) if place & half == part]
            if step == half:
                break
            distance, step, part = step - half, step >> 1, half
        half >>= 1
    return found


def median(updates, weights_B):
    """The median of each number (Yin et al. 2018, definition 1): bears all shares below a half."""
    updates, here_B = present(updates, weights_B)

    def of(x):
        ranked, count = _ranked(x, here_B)
        low, high = jnp.maximum(count - 1, 0) // 2, count // 2
        return jnp.where(count > 0, (ranked[low] + ranked[high]) / 2, 0)

    return jax.tree.map(of, updates)


def trimmed_mean(updates, weights_B, share: float):
    """The mean of each number without the largest and the smallest `share` of it (Yin et al. 2018, definition 2)."""
    updates, here_B = present(updates, weights_B)

    def of(x):
        ranked, count = _ranked(x, here_B)
        cut = jnp.ceil(share * count - 1e-6).astype(jnp.int32)
        cut = jnp.minimum(cut, jnp.maximum(count - 1, 0) // 2)
        places = _along(jnp.arange(len(x)), x)
        kept = (places >= cut) & (places < count - cut)
        return jnp.where(kept, ranked, 0).sum(0) / jnp.maximum(count - 2 * cut, 1)

    return jax.tree.map(of, updates)


def distances(updates):
    """Squared distances between clients, [B, B]; infinite where they are too large or no number."""
    flat_BP = [leaf.reshape(len(leaf), -1) for leaf in jax.tree.leaves(updates)]
    products = sum(jnp.matmul(x, x.T, precision="highest") for x in flat_BP)
    squares = jnp.diagonal(products)
    found = jnp.maximum(squares[:, None] + squares[None] - 2 * products, 0)
    return jnp.where(jnp.isfinite(found), found, jnp.inf)


def krum(updates, weights_B, share: float):
    """Multi-Krum (Blanchard et al. 2017, sec. 4): the mean of the n - f updates with the least sum of squared distances to their n - f - 2
    nearest, f being `share` of the n that are there, rounded up."""
    updates, here_B = present(updates, weights_B)
    count = here_B.sum()
    borne = jnp.ceil(share * count - 1e-6).astype(jnp.int32)
    both = here_B[:, None] & here_B[None] & ~jnp.eye(len(weights_B), dtype=bool)
    nearest = jnp.sort(jnp.where(both, distances(updates), jnp.inf), axis=1)
    counted = jnp.arange(len(weights_B))[None] < jnp.minimum(jnp.maximum(count - borne - 2, 1), count - 1)  # never absent ones
    scores = jnp.where(here_B, jnp.where(counted, nearest, 0).sum(1), jnp.inf)
    rank = jnp.argsort(jnp.argsort(scores))
    return mean(updates, ((rank < count - borne) & here_B).astype(jnp.float32))


def geometric_median(updates, weights_B, steps: int = 16):
    """The point whose distances to all updates have the least sum, by the smoothed Weiszfeld algorithm (Pillutla et al. 2022,
    algorithm 2)."""
    updates, present_B = present(updates, weights_B)
    here_B = present_B.astype(jnp.float32)
    squares_BB = distances(updates)  # distances to a weighted mean follow from those between clients

    def step(_, share_B):
        to_mean_B = squares_BB @ share_B - share_B @ squares_BB @ share_B / 2
        near_B = here_B / jnp.maximum(jnp.sqrt(jnp.maximum(to_mean_B, 0)), SMOOTH * scale)
        return near_B / jnp.maximum(near_B.sum(), 1e-30)

    start = here_B / jnp.maximum(here_B.sum(), 1)
    scale = jnp.sqrt(jnp.maximum(start @ squares_BB @ start / 2, 1e-30))
    return mean(updates, jax.lax.fori_loop(0, steps, step, start))


SMOOTH = 1e-4
"""Least distance in the Weiszfeld steps, in units of the updates' deviation."""


def rule(name: str, share: float) -> Callable[[Any, Any], Any]:
    """The rule that an option names, which bears `share` of the clients."""
    rules: dict[str, Callable[[Any, Any], Any]] = {
        "mean": mean,
        "median": median,
        "trimmed_mean": lambda updates, weights_B: trimmed_mean(updates, weights_B, share),
        "krum": lambda updates, weights_B: krum(updates, weights_B, share),
        "geometric_median": geometric_median,
    }
    return rules[name]
