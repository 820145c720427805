"""Free large-batch adversarial training (Zhu et al. 2020)."""

import functools

import jax
import jax.numpy as jnp

from train.experiment import Experiment
from train.step.adversarial.options import FreeLB
from train.step.adversarial.perturbation import direction, noise, pushed, segments_of, table_width, tokens_in, within
from train.step.gradients import in_parts


def freelb(options: FreeLB, experiment: Experiment, unit: str):
    """All passes draw the same dropout. Metrics are those of the first; adversarial is the loss of the last."""
    width = table_width(experiment)

    def whole(objective, params, batch, key, *, weights=None, frozen=None, carry=None):
        segments_BT, beside = segments_of(batch), {"weights": weights, "frozen": frozen, "carry": carry}
        uniform = functools.partial(jax.random.uniform, minval=-1.0, maxval=1.0)
        size_BT1 = options.magnitude / jnp.sqrt(jnp.maximum(tokens_in(segments_BT) * width, 1))

        def ascend(state, _):
            gradients, shift_BTW = state
            more, push_BTW, metrics, new_carry = pushed(objective, params, batch, shift_BTW, key, **beside)
            gradients = jax.tree.map(lambda total, g: total + g / options.steps, gradients, more)
            shift_BTW = within(shift_BTW + options.step_size * direction(push_BTW, segments_BT), segments_BT, options.epsilon)
            return (gradients, shift_BTW), (metrics, new_carry)

        zero = jax.tree.map(lambda p: jnp.zeros(p.shape, jnp.float32), params)
        begin = within(size_BT1 * noise(uniform, batch, key, width), segments_BT, options.epsilon)
        (gradients, _), found = jax.lax.scan(ascend, (zero, begin), length=options.steps)
        metrics, new_carry = jax.tree.map(lambda leaf: leaf[0], found)
        return gradients, metrics | {"adversarial": jax.tree.map(lambda leaf: leaf[-1], found[0]["loss"])}, new_carry

    return in_parts(whole, experiment, unit)
