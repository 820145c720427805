"""Bad steps: what counts as one, decided inside the step, from numbers of the global batch, so that every process decides the same."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

DECAY = 0.98
"""Of the moving averages of the loss: about fifty steps."""
WARM = 50
"""Losses seen before one can be called a spike."""


@flax.struct.dataclass
class History:
    """What a step remembers of the losses before it.

    mean, square: moving averages of the loss and its square (bias not corrected). seen: losses they hold. skipped: bad steps in a row, the
    last one included.
    """

    mean: Any
    square: Any
    seen: Any
    skipped: Any


def no_history() -> History:
    return History(jnp.float32(0), jnp.float32(0), jnp.int32(0), jnp.int32(0))


def detect(history: History, loss, gradient_norm, spike: float, unsound=False):
    """Whether a step is bad (bool scalar), and the history after it.

    loss, gradient_norm: float32 scalars of the global batch. Bad is what the objective found unsound, what is not finite and, with `spike`
    above 0, a loss more than `spike` standard deviations above the moving average of the good ones before it.
    """
    bad = ~(jnp.isfinite(loss) & jnp.isfinite(gradient_norm)) | unsound
    if spike:
        correction = 1 - DECAY ** jnp.maximum(history.seen, 1).astype(jnp.float32)
        mean = history.mean / correction
        deviation = jnp.sqrt(jnp.maximum(history.square / correction - mean**2, 1e-12))
        bad |= (history.seen >= WARM) & (loss > mean + spike * deviation)
    after = History(
        DECAY * history.mean + (1 - DECAY) * loss,
        DECAY * history.square + (1 - DECAY) * loss**2,
        history.seen + 1,
        jnp.int32(0),
    )
    return bad, choose(bad, History(history.mean, history.square, history.seen, history.skipped + 1), after)


def choose(bad, before, after):
    """Every leaf of `before` where the step is bad, else of `after`: bit for bit."""
    return jax.tree.map(lambda old, new: jnp.where(bad, old, new), before, after)
