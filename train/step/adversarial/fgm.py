"""The fast gradient method on embeddings (Miyato et al. 2017)."""

import jax

from train.experiment import Experiment
from train.step.adversarial.options import FGM
from train.step.adversarial.perturbation import direction, no_shift, pushed, segments_of, table_width
from train.step.gradients import in_parts, plain


def fgm(options: FGM, experiment: Experiment, unit: str):
    """Both passes draw the same dropout, so that the second differs by the perturbation alone; their gradients are added. Metric:
    adversarial, the loss of the second."""
    width = table_width(experiment)

    def whole(objective, params, batch, key, *, weights=None, frozen=None, carry=None):
        more = {"weights": weights, "frozen": frozen, "carry": carry}
        clean, push_BTW, metrics, new_carry = pushed(objective, params, batch, no_shift(batch, width), key, **more)
        moved = batch._replace(shift=options.epsilon * direction(push_BTW, segments_of(batch)))
        moved_gradients, found, _ = plain(objective, params, moved, key, **more)
        gradients = jax.tree.map(lambda g, at: g + options.weight * at, clean, moved_gradients)
        return gradients, metrics | {"adversarial": found["loss"]}, new_carry

    return in_parts(whole, experiment, unit)
