"""A batch of comparisons."""

import jax.numpy as jnp
import numpy as np

from train.sources.comparisons import Comparisons

ROWS, RESPONSES, LENGTH = 4, 3, 8


def comparisons() -> Comparisons:
    """Responses of different lengths after prompts of two tokens; row 1 has two responses, row 3 is padding."""
    rng = np.random.default_rng(0)
    shape = (ROWS, RESPONSES, LENGTH)
    ids, lengths = rng.integers(4, 17, (*shape[:2], LENGTH + 1)), rng.integers(4, LENGTH + 1, shape[:2])
    inside = np.arange(LENGTH) < lengths[..., None]
    present, counts = np.ones(shape[:2], np.float32), np.array([1, 1, 1, 0], np.float32)
    present[1, 2] = 0
    return Comparisons(
        tokens=jnp.asarray(ids[..., :-1] * inside),
        targets=jnp.asarray(ids[..., 1:] * inside),
        segments=jnp.asarray(inside.astype(np.int32)),
        positions=jnp.asarray(np.broadcast_to(np.arange(LENGTH), shape) * inside),
        weights=jnp.asarray((inside & (np.arange(LENGTH) >= 1)).astype(np.float32)),
        best=jnp.asarray([2, 1, 0, 0]),
        present=jnp.asarray(present),
        scores=jnp.asarray(rng.normal(size=shape[:2]), jnp.float32),
        counts=jnp.asarray(counts),
        rows=jnp.arange(ROWS),
    )
