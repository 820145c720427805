"""Rows of one file as those of clients that know different things."""

from collections.abc import Sequence

import numpy as np


def dirichlet(labels: Sequence[str], clients: int, alpha: float, seed: int) -> np.ndarray:
    """int [N]: the client of each row. Of every label each client has a share drawn from Dirichlet(alpha, ..., alpha) (Hsu et al. 2019; the
    label skew of Li et al. 2022, sec. 4).

    alpha: above 0; 100 makes clients alike, 0.1 gives most of them one or two labels. Clients may stay without rows.
    """
    rng = np.random.default_rng(seed)
    names = np.asarray(labels)
    found = np.empty(len(names), np.int64)
    for label in sorted({*labels}):
        places = rng.permutation(np.flatnonzero(names == label))
        shares = np.cumsum(rng.dirichlet(np.full(clients, alpha)))
        found[places] = np.searchsorted(shares[:-1] * len(places), np.arange(len(places)), side="right")
    return found
