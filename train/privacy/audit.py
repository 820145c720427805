"""Whether the private gradient of a run does what it promises: with canaries, through the gradient as it trains.

A canary is a unit whose gradient is known: its loss is `LOUD` times one number of an extra leaf of the parameters, so that clipping leaves
the clipping norm in that place and nothing elsewhere. The real loss of the run is computed beside it, on padding.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from train.experiment import Experiment
from train.kinds import Bound, Dataset, realise
from train.objectives.terms import Term
from train.privacy.accounting import Spending
from train.privacy.bound import epsilon_bound
from train.step.private.gradient import SECRET
from train.step.private.options import Private

LOUD = 1e3
"""Length of a canary's gradient in clipping norms, before it is clipped."""
DOUBT = 1e-4
"""Probability with which right noise is said to be wrong."""


class CanaryBatch(NamedTuple):
    """Rows of the run's kind of data beside the vectors that are the gradients of canaries, float32 [B, N]; 0 for none."""

    real: Any
    vectors: Any
    weights: Any  # float32 [B]: 0 where no unit was drawn
    rows: Any


@dataclasses.dataclass(frozen=True)
class CanaryLoss:
    """The loss of a run, and of canaries: parameters {"model", "canaries" [N]}."""

    loss: Any

    def __call__(self, params, batch: CanaryBatch, key, *, frozen=None, carry=None):
        terms, metrics, carry = self.loss(params["model"], batch.real, key, frozen=frozen, carry=carry)
        # The vectors stand apart from what the unit weighs: it is the gradient that must leave out what was not drawn.
        return terms | {"canary": Term(1.0, (batch.vectors @ params["canaries"]).sum(), jnp.float32(1))}, metrics, carry


class Check(NamedTuple):
    """A property that was measured. passed: whether `found` is within `allowed`, [low, high]."""

    name: str
    found: float
    allowed: tuple[float, float]
    what: str

    @property
    def passed(self) -> bool:
        return self.allowed[0] <= self.found <= self.allowed[1]


class Mechanism:
    """The private gradient of an experiment, fed with canaries. Everything it says is in clipping norms, of the sum over units."""

    def __init__(self, experiment: Experiment, bound: Bound, params: Any, dataset: Dataset, frozen: Any = None):
        options = experiment.gradient
        assert isinstance(options, Private)
        self.options, self.size = options, experiment.batch_size
        self._frozen, self._expected = frozen or {}, options.expected_batch or experiment.batch_size
        self._params = {"model": params, "canaries": jnp.zeros(self.size)}
        self._empty = dataset.empty(self.size * options.unit_rows)
        method, loss = realise(options, experiment, experiment.objective.unit), CanaryLoss(bound.loss)

        def gradient(params, batch, key, secret, frozen):
            found = method(loss, params, batch, key, frozen=frozen | {SECRET: secret})[0]
            sums = jax.tree.map(lambda g: g * self._expected / options.clip, found)
            rest = jnp.concatenate([leaf.ravel()[:SEEN] for leaf in jax.tree.leaves(sums["model"])])
            return sums["canaries"], rest

        self._gradient = jax.jit(gradient)

    def __call__(self, vectors, there, step: int) -> tuple[np.ndarray, np.ndarray]:
        """(the canaries' part of the sum, some of the rest) of units whose gradients are `vectors`, [size, size]. there: bool, which of
        them were drawn."""
        rows = self.options.unit_rows
        vectors = np.repeat(np.asarray(vectors, np.float32) * self.options.clip, rows, 0)
        weights = np.repeat(np.asarray(there, np.float32), rows)
        batch = CanaryBatch(self._empty, vectors, weights, np.arange(len(weights), dtype=np.int32))
        secret = np.array([0x41554449, 0x54], np.uint32)  # known here: nothing is to be kept from an audit
        canaries, rest = self._gradient(self._params, batch, jax.random.key(step), secret, self._frozen)
        return np.asarray(canaries), np.asarray(rest)


SEEN = 4096
"""Numbers of each leaf of the model whose noise is looked at."""


def audit(mechanism: Mechanism, canaries: int, seed: int = 0) -> tuple[list[Check], float, float]:
    """(checks, the audited lower bound of epsilon, the claimed epsilon) of steps whose units are canaries, each drawn with probability 1/2.

    The claim is that of one step which draws everybody, as no canary is in more than one: it needs no sampling to hold.
    """
    checks = [clipping(mechanism), padding(mechanism), *noise(mechanism)]
    rng, scores, inside = np.random.default_rng(seed), [], []
    loud = LOUD * np.eye(mechanism.size)
    for step in range(-(-canaries // mechanism.size)):
        there = rng.random(mechanism.size) < 0.5
        scores.append(mechanism(loud * there[:, None], there, FIRST + step)[0])
        inside.append(there)
    delta = mechanism.options.delta
    claimed = Spending(mechanism.options.noise_multiplier, 1.0, 1).epsilon(delta)
    found = epsilon_bound(np.concatenate(scores), np.concatenate(inside), delta)
    return checks, found, claimed


FIRST = 1000
"""Number of the first step with canaries, apart from those of the other checks."""


def clipping(mechanism: Mechanism) -> Check:
    """How much one unit moves the sum, whatever the others are: loud or quiet, along or against them. The noise is the same and cancels."""
    size, rng = mechanism.size, np.random.default_rng(0)
    others = rng.normal(size=(size, size))
    others *= np.geomspace(0.1, LOUD, size)[:, None] / np.linalg.norm(others, axis=1, keepdims=True)
    worst = 0.0
    for step, vector in enumerate((LOUD * np.eye(size)[0], -LOUD * others.sum(0) / np.linalg.norm(others.sum(0)), 0.5 * np.eye(size)[0])):
        for kept in (0, 1, size - 1):  # other units beside it
            vectors, there = others.copy(), np.arange(size) <= kept
            vectors[0] = vector
            with_it, without = (np.concatenate(mechanism(vectors, there & beside, step)) for beside in (True, np.arange(size) > 0))
            worst = max(worst, float(np.linalg.norm(with_it - without)))
    # What is subtracted has noise and sums of many units in it, and so their rounding.
    allowed = 1 + 1e-5 * (1 + size + mechanism.options.noise_multiplier * np.sqrt(size))
    return Check("clipping", worst, (0.0, allowed), "clipping norms by which one unit moved the sum, at most")


def padding(mechanism: Mechanism) -> Check:
    """How much places without a unit move the sum, with anything in them."""
    size = mechanism.size
    there = np.arange(size) < size // 2
    garbage, zeros = LOUD * np.eye(size), LOUD * np.eye(size) * there[:, None]
    with_garbage, without = (np.concatenate(mechanism(vectors, there, 1)) for vectors in (garbage, zeros))
    moved = float(np.abs(with_garbage - without).max())
    return Check("padding", moved, (0.0, 1e-5), "clipping norms by which places without a unit moved the sum")


def noise(mechanism: Mechanism) -> list[Check]:
    """The size of the noise of empty steps, and whether steps, and numbers within one, share any."""
    size = mechanism.size
    if not mechanism.options.noise_multiplier:
        return []
    nothing = np.zeros((size, size)), np.zeros(size, bool)
    steps = [np.concatenate(mechanism(*nothing, step)) for step in range(2, 4)]
    count, deviation = sum(map(len, steps)), mechanism.options.noise_multiplier
    ratio = float(np.sqrt(sum(np.square(step).sum() for step in steps) / count)) / deviation
    low, high = np.sqrt(np.array(stats.chi2.interval(1 - DOUBT, count)) / count)
    pairs = [(steps[0], steps[1]), *((step[1:], step[:-1]) for step in steps)]
    with np.errstate(invalid="ignore"):  # no noise has no correlation
        shared = max(abs(float(np.corrcoef(one, other)[0, 1])) for one, other in pairs)
    most = float(stats.norm.isf(DOUBT / 6) / np.sqrt(count / 2 - 1))
    return [
        Check("noise", ratio, (float(low), float(high)), "of the promised standard deviation"),
        Check("independence", shared if np.isfinite(shared) else 1.0, (0.0, most), "correlation of the noise of steps and of neighbours"),
    ]
