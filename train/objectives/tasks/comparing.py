"""Two passes over the same examples, and how far their answers are apart: with other dropout (R-Drop), or with tokens that are moved."""

from typing import Protocol

import jax

from train.objectives.tasks.options import Supervised
from train.objectives.taught import Taught
from train.objectives.terms import Term
from train.step.adversarial.perturbation import Contrast

AGAIN = 0x72647270
"""Folded into the key of a step for the second pass of R-Drop."""


class Comparing(Taught, Protocol):
    """A loss of examples that compares the answers of two passes where its options or its batch ask for it.

    Terms, beside those of one pass: `dropout_divergence` with r_drop in training, `divergence` where the batch's shift is a Contrast.
    """

    options: Supervised

    def __call__(self, params, batch, key, *, frozen=None, carry=None):
        if isinstance(batch.shift, Contrast):
            return *self._contrasted(params, batch, key), carry
        answers = self.forward(params, batch, key)
        terms, metrics = self.judged(params, batch, answers, key is not None)
        if key is not None and self.options.r_drop:
            others = self.forward(params, batch, jax.random.fold_in(key, AGAIN))
            again, _ = self.judged(params, batch, others)
            terms = jax.tree.map(lambda one, other: (one + other) / 2, terms, again)
            terms["dropout_divergence"] = Term(self.options.r_drop / 2, *self.divergence(others, answers, batch, symmetric=True))
        return terms, metrics, carry

    def _contrasted(self, params, batch, key):
        """The loss without the shift, and the divergence of the answers with it."""
        contrast, clean = batch.shift, batch._replace(shift=None)
        answers = self.forward(params, clean, key)
        moved = self.forward(params, batch._replace(shift=contrast.shift_BTW), key)
        terms, metrics = self.judged(params, clean, answers, key is not None)
        from_ = answers if contrast.symmetric else jax.lax.stop_gradient(answers)
        apart = self.divergence(moved, from_, clean, symmetric=contrast.symmetric)
        return terms | {"divergence": Term(contrast.coefficient, *apart)}, metrics
